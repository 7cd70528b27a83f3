"""Gated search: every image gets the channels it needs."""

import copy
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from rlprune.agents.gating.agents import require_recurrent
from rlprune.agents.gating.alternation import STAGED, Alternation
from rlprune.artifacts.pruned import save_pruned
from rlprune.config.commands import RECURRENT, Search
from rlprune.config.resolve import as_dict, to_yaml
from rlprune.cost.budget import Budget, parse_budget
from rlprune.errors import UserError
from rlprune.gating.checkpoint import gate_params, shrink, stored_mask
from rlprune.gating.controller import KeepController
from rlprune.gating.gate import make_gates, wires
from rlprune.gating.layout import make_layout
from rlprune.gating.network import GatedNetwork
from rlprune.gating.skipping import SkippingNetwork
from rlprune.latency.timing import quick_latency
from rlprune.methods.criteria.base import score_channels
from rlprune.pipeline.plans import provenance_of
from rlprune.pipeline.results import continuable, described, known_result, sizes
from rlprune.plans.plan import PruningPlan, make_plan
from rlprune.reports.page import write_run_page
from rlprune.runs.folder import RunFolder, date_of, default_folder, write_result
from rlprune.training.loop import evaluate
from rlprune.utils.files import FileFormat, room_for, write_text
from rlprune.utils.lock import locked
from rlprune.utils.progress import Progress
from rlprune.workloads.dense import train_dense
from rlprune.workloads.workload import Workload, inputs_of, open_workload

METHOD = Path("state") / "method.json"
METHOD_FORMAT = FileFormat("rlprune-method")


@dataclass(frozen=True)
class Method:
    """One way to choose channels.

    Attributes:
        name: for people.
        mix: 0, all images alike, to 1, everything stays in store.
        predicts: gates look at the image to say which channels.
        acts: an agent looks at the image to say how many.
    """

    name: str
    mix: float
    predicts: bool
    acts: bool

    @property
    def control(self) -> str | None:
        """What --controls calls it."""
        return self.name if self.name in CONTROLS else None


CONTROLS = {
    # Gao et al., 2018, arXiv 1810.05331: a fixed ratio of every layer, the channels chosen for the image.
    "fbs": Method("fbs", 1.0, predicts=True, acts=False),
    # Lin et al., 2017 (NIPS): an agent says how many for the image, always the same ones first.
    "rnp": Method("rnp", 1.0, predicts=False, acts=True),
}


def methods_of(given: Search) -> list[Method]:
    """The two agents at every mix, then the controls."""
    agents = [Method(f"mix {mix:g}", mix, predicts=mix > 0, acts=mix > 0) for mix in given.mixes]
    return agents + [CONTROLS[name] for name in given.compared]


def run_gated_search(given: Search, progress: Progress) -> dict[str, Any]:
    """Train gates and agents, project onto the budget, remove what no image needs, and measure.

    Args:
        given: settings with the mode ``runtime``.
        progress: told how far it is.

    Raises:
        UserError: whatever cannot be used, before any work starts.
    """
    start = time.perf_counter()
    budget = _budget(given)
    if given.agent == RECURRENT:
        require_recurrent()
    folder = given.out or default_folder(given)
    if (known := known_result(folder, given, progress)) is not None:
        return known
    workload = open_workload(as_dict(given), progress)
    _require_reachable(workload, given, budget)
    train_dense(workload, given, progress)
    run = RunFolder(folder, given)
    with locked(folder), room_for(folder):
        run.same_inputs(inputs_of(workload))
        methods = methods_of(given)
        with continuable(f"the stages that have ended are in {folder}", progress):
            rows = [_one(workload, given, each, budget, _place(folder, each, methods), progress) for each in methods]
        result = {"run": str(folder), "mode": "runtime", **described([budget], workload, time.perf_counter() - start)}
        result |= {"dense_macs": int(workload.cost.dense[0]), "dense_params": int(workload.cost.dense[1])}
        if len(rows) == 1:
            result = _as_run(rows[0], result)
        else:
            for row in rows:
                write_result(Path(row["folder"]), _as_run(row, result))
        result |= {"methods": rows}
        write_result(folder, result)
        write_run_page(folder)
    return result


def _budget(given: Search) -> Budget:
    """The one bound that a mean over images can have."""
    if given.budget is None or (isinstance(given.budget, str) and ":" in given.budget):
        raise UserError("--mode runtime wants one --budget; what it makes can be told another at any time (set_budget)")
    budget = parse_budget(given.budget)
    if list(budget.limits) != ["macs"] or budget.timed:
        raise UserError(f"--budget {budget}: --mode runtime bounds the MACs alone, the mean over images; try macs=0.5")
    return budget


def _require_reachable(workload: Workload, given: Search, budget: Budget) -> None:
    """Whether the layers that can be skipped are enough for the budget."""
    gated = _gated(workload, given, Method("", 1.0, predicts=False, acts=False))
    least = make_layout(gated, workload.cost).macs[0]
    gated.bare()
    if budget.limits["macs"] < least:
        count = f"{len(wires(workload.module, workload.graph))} of {len(workload.graph.groups)}"
        raise UserError(
            f"--budget {budget} cannot be met: only {count} groups can be chosen image by image, and without them "
            f"{100 * least:.1f} % of the MACs are left; ask for more"
        )


def _gated(workload: Workload, given: Search, method: Method) -> GatedNetwork:
    scores = score_channels(given.criterion, workload.module, workload.graph, workload.calibration(), given.seed)
    network = copy.deepcopy(workload.module)
    torch.manual_seed(given.seed)
    gates = make_gates(network, workload.graph, scores, method.predicts)
    return GatedNetwork(network, workload.graph, gates, method.mix).to(workload.device)


def _place(folder: Path, method: Method, methods: list[Method]) -> Path:
    """The run folder itself, or one in it for each of several methods."""
    return folder if len(methods) == 1 else folder / method.name.replace(" ", "-")


def _one(
    workload: Workload, given: Search, method: Method, budget: Budget, folder: Path, progress: Progress
) -> dict[str, Any]:
    """Everything for one method; what has ended before is read."""
    if (folder / METHOD).is_file():
        (folder / STAGED).unlink(missing_ok=True)
        return METHOD_FORMAT.read(folder / METHOD)
    start = time.perf_counter()
    progress.note(f"{method.name}: in {folder}")
    # A run of its own on a page, whichever run it is a part of.
    write_text(folder / "config.yaml", to_yaml(replace(given, mix=f"{method.mix:g}", controls=method.control)))
    gated = _gated(workload, given, method)
    layout = make_layout(gated, workload.cost)
    alternation = Alternation(workload, gated, layout, budget.limits["macs"], method.acts, given, folder, progress)
    epochs = workload.data.finetune_epochs if given.finetune_epochs is None else given.finetune_epochs
    alternation.run(epochs)
    progress.stage("measuring")
    row = {"method": method.name, "folder": str(folder), **_measure(workload, given, method, alternation, folder)}
    row["seconds"] = round(time.perf_counter() - start, 1)
    METHOD_FORMAT.write(folder / METHOD, row)
    (folder / STAGED).unlink(missing_ok=True)
    return row


def _measure(
    workload: Workload, given: Search, method: Method, alternation: Alternation, folder: Path
) -> dict[str, Any]:
    """Remove, save and measure; the test images are looked at here and nowhere else."""
    gated, runtime = alternation.gated, alternation.runtime
    mask = stored_mask(gated, runtime)
    plan = make_plan(workload.graph, mask, workload.network, provenance_of(workload, given))
    gated.runtime = runtime
    _, dense = evaluate(workload.module, workload.data.test, device=workload.device)
    _, accuracy = evaluate(gated, workload.data.test, device=workload.device)
    ran = _counts(workload, gated, runtime)
    ratios = workload.cost.ratios(ran)[:, 0]
    write_text(folder / "ratios.csv", _table(workload, plan, ran).to_csv(index=False))
    module = shrink(gated, runtime, workload.data.shape)
    plan.save(folder / "plan.json")
    accuracies = {"dense_accuracy": dense, "finetuned_accuracy": accuracy}
    save_pruned(module, plan, folder / "pruned", accuracies, date_of(folder, folder.parent))
    stored, whole = workload.cost(plan.counts())[1], workload.cost.dense
    return {
        **{key: value for key, value in asdict(method).items() if key in ("mix", "predicts", "acts")},
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


def _counts(workload: Workload, gated: GatedNetwork, runtime: KeepController) -> np.ndarray:
    """(images, groups) channels that run for every test image."""
    found = []
    with torch.no_grad():
        for images, _ in workload.data.test.batches(250, device=workload.device):
            gated(images, runtime)
            found.append(gated.counts())
    return np.concatenate(found)


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


def _as_run(row: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """A method's row in the words of a result of its own."""
    macs, params = about["dense_macs"], about["dense_params"]
    after = {"pruned_macs": int(row["macs_ratio"] * macs), "pruned_params": int(row["stored_with_gates"] * params)}
    told = {"params_ratio": row["stored_with_gates"], "finetuned_accuracy": row["test_accuracy"], **after}
    return {**about, **row, **told, "run": row["folder"]}


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
