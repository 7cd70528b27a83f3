"""What a gated search has found: the network that is saved, and what it does on the test images."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from rlprune.agents.gating.alternation import Alternation
from rlprune.artifacts.pruned import load, save_pruned
from rlprune.config.commands import Search
from rlprune.errors import UserError
from rlprune.gating.agreement import TOLERANCE, TRIED, DisagreementError, require_agreement
from rlprune.gating.checkpoint import gate_params, shrink, stored_mask
from rlprune.gating.counting import CountingNetwork
from rlprune.gating.skipping import SkippingNetwork
from rlprune.latency.timing import quick_latency
from rlprune.pipeline.plans import provenance_of
from rlprune.pipeline.results import sizes
from rlprune.plans.plan import PruningPlan, make_plan
from rlprune.runs.folder import date_of
from rlprune.training.loop import evaluate
from rlprune.utils.files import write_text
from rlprune.workloads.workload import Workload

LOOKED_AT = 32
"""Test images on which what is saved is compared with what was measured."""
MAY_DIFFER = 0.1
"""Part of them that may get other outputs."""


def measure(workload: Workload, given: Search, alternation: Alternation, folder: Path) -> dict[str, Any]:
    """Remove what no image needs, measure what is left, and save it; the test images are looked at nowhere else.

    Args:
        workload: the dense network and its images.
        given: settings.
        alternation: what was trained; its network can no longer be used.
        folder: gets `ratios.csv`, `plan.json` and the pruned folder.

    Raises:
        UserError: what is saved is not what was measured.
    """
    mask = stored_mask(alternation.gated, alternation.runtime)
    plan = make_plan(workload.graph, mask, workload.network, provenance_of(workload, given))
    module = shrink(alternation.gated, alternation.runtime).to(workload.device)
    dense = workload.dense_accuracy()
    # Under masks, which in batches is faster; that it is the same is looked at below.
    _, accuracy = evaluate(counting := CountingNetwork(module.gated), workload.data.test, device=workload.device)
    ran = counting.counts()
    ratios = workload.cost.ratios(ran)[:, 0]
    write_text(folder / "ratios.csv", _table(workload, plan, ran).to_csv(index=False))
    plan.save(folder / "plan.json")
    accuracies = {"dense_accuracy": dense, "finetuned_accuracy": accuracy}
    module = module.cpu()
    save_pruned(module, plan, folder / "pruned", accuracies, date_of(folder, folder.parent))
    _require_as_measured(workload, module, folder / "pruned")
    stored, whole = workload.cost(plan.counts())[1], workload.cost.dense
    return {
        "dense_accuracy": dense,
        "test_accuracy": accuracy,
        "macs_ratio": float(ratios.mean()),
        "macs_p5": float(np.quantile(ratios, 0.05)),
        "macs_p95": float(np.quantile(ratios, 0.95)),
        "gate_macs_ratio": gate_macs(module) / whole[0],
        "stored_ratio": float(stored / whole[1]),
        "stored_with_gates": float((stored + gate_params(module)) / whole[1]),
        **sizes(workload.module, folder / "pruned"),
        "latency": quick_latency(workload.module, module, workload.data.shape),
        "budgets": list(module.budgets),
    }


def _require_as_measured(workload: Workload, module: SkippingNetwork, folder: Path) -> None:
    """Whether a saved network, loaded again, gives image by image what was measured in batches under masks; on the CPU.

    Raises:
        UserError: it does not; nothing is reported of it then.
    """
    test = workload.data.test
    images, _ = test.take(torch.arange(min(LOOKED_AT, len(test))))
    loaded = load(folder)
    assert isinstance(loaded, SkippingNetwork)
    with torch.no_grad():
        measured, there = module.gated(images), torch.cat([loaded(image[None]) for image in images])
    # Where two channels are about as important, rounding may exchange them: a few images may differ, but not many.
    differ = (there - measured).abs().amax(1) > TOLERANCE * (measured - measured.mean(0)).abs().max()
    try:
        if len(images) > 1:
            require_agreement(loaded.gated, images[:TRIED])
        if differ.float().mean() > MAY_DIFFER:
            raise DisagreementError(f"{int(differ.sum())} of {len(images)} images get other outputs")
    except DisagreementError as error:
        raise UserError(
            f"{folder} is not to be used: loaded and run image by image it is not the network that was measured "
            f"({error}); does the network compute something else after it is built again?"
        ) from None


def _table(workload: Workload, plan: PruningPlan, ran: np.ndarray) -> pd.DataFrame:
    """One row a group: how many of its channels run in the mean, and how many are stored."""
    groups, mean = workload.graph.groups, ran.mean(axis=0)
    return pd.DataFrame(
        {
            "group": [group.name for group in groups],
            "tied": [len(workload.graph.layers_of(group)) - 1 for group in groups],
            "channels": workload.graph.sizes,
            "kept": np.round(mean, 2),
            "keep_ratio": np.round(mean / workload.graph.sizes, 6),
            "kept_p5": np.quantile(ran, 0.05, axis=0),
            "kept_p95": np.quantile(ran, 0.95, axis=0),
            "stored": plan.counts(),
        }
    )


def gate_macs(module: SkippingNetwork) -> float:
    """Multiply-accumulates of predictors and policy for an image."""
    policy, gates = module.runtime.policy, module.gated.gates
    if policy is None:
        return float(_weights(gates))
    # What all layers share is gone through at every one of them.
    shared = _weights(policy.hidden) + _weights(policy.head)
    return float(_weights(gates) + _weights(policy.encoders) + len(gates) * shared)


def _weights(part: nn.Module) -> int:
    """Weights of the linear layers in a part, each of which is one multiply-accumulate."""
    return sum(parameter.numel() for parameter in part.parameters() if parameter.ndim > 1)
