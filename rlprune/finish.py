"""From kept counts to a folder: prune for real, fine-tune, measure on the test images, save."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from rlprune import __version__
from rlprune.allocators.sensitivity import Sensitivity
from rlprune.budget import Budget, describe
from rlprune.card import model_card
from rlprune.config import as_dict
from rlprune.deploy import save_gated
from rlprune.evaluator import recalibrate
from rlprune.files import write_json, write_text
from rlprune.models.checkpoint import save_weights
from rlprune.modules import named_tensors
from rlprune.plan import PruningPlan, make_plan, ratio_table, rows, top_mask
from rlprune.problem import KEPT, Problem, fit
from rlprune.progress import Progress
from rlprune.pruner import prune
from rlprune.settings import Search, Settings
from rlprune.skipping import SkippingNetwork
from rlprune.timing import quick_latency
from rlprune.training import evaluate


def plan_of(
    problem: Problem, counts: np.ndarray, scores: np.ndarray, given: Settings, sensitivity: Sensitivity | None = None
) -> PruningPlan:
    """The plan that keeps the best-scoring channels, with what it needs to be used without its run.

    Args:
        problem: the dense network.
        counts: (groups,) kept channels.
        scores: (all groups' channels,) of the criterion.
        given: the settings that led to it.
        sensitivity: the network's own curves, where they were measured.
    """
    rises = None if sensitivity is None else np.array(sensitivity.parts(counts / problem.graph.sizes))
    mask = top_mask(problem.graph, counts, scores)
    return make_plan(problem.graph, mask, problem.network, provenance_of(problem, given), scores, rises)


def provenance_of(problem: Problem, given: Settings) -> dict[str, Any]:
    """Where a plan comes from, and what it needs to be used without its run."""
    settings = as_dict(given)
    data = {key: settings[key] for key in KEPT if settings.get(key) not in (None, False)}
    return {
        "budget": str(settings.get("budget")),
        "criterion": settings.get("criterion"),
        "dense_weights": problem.weights(),
        "data_settings": data,
    }


def save_plan(problem: Problem, plan: PruningPlan, folder: Path) -> pd.DataFrame:
    """Write `plan.json` and `ratios.csv`; returns the ratio table."""
    plan.save(folder / "plan.json")
    table = ratio_table(problem.graph, problem.cost, plan)
    write_text(folder / "ratios.csv", table.to_csv(index=False))
    return table


def save_pruned(module: nn.Module, plan: PruningPlan, folder: Path, facts: Mapping[str, Any] | None = None) -> None:
    """Write a pruned network as `model.safetensors` and `plan.json`, which `rlprune.load` reads back.

    Beside them `config.json`, by which model hubs know such a folder, and a model card.

    Args:
        module: the network.
        plan: what was kept.
        folder: where to.
        facts: accuracies and costs for the card; without any, a card that is there stays.
    """
    plan.save(folder / "plan.json")
    write_json(folder / "config.json", {"library_name": "rlprune", "rlprune_version": __version__, **plan.network})
    if facts or not (folder / "README.md").is_file():
        write_text(folder / "README.md", model_card(plan, facts or {}))
    if isinstance(module, SkippingNetwork):
        save_gated(module, folder)
        return
    # With the buffers that a state dict leaves out: they may be cut.
    save_weights(named_tensors(module), folder / "model.safetensors")


@dataclass(frozen=True)
class Recovered:
    """A pruned network, its accuracy on the test images before and after fine-tuning (or None), and its course."""

    module: nn.Module
    oneshot: float
    tuned: float | None
    history: list[dict[str, float]]


def recover(
    problem: Problem, mask: np.ndarray, epochs: int, options: Search, state: Path, progress: Progress
) -> Recovered:
    """Prune, recalibrate and fine-tune; the test images are looked at here and nowhere else.

    Args:
        problem: the dense network and its images.
        mask: (all groups' channels,) bool, True where a channel stays.
        epochs: of fine-tuning; 0 leaves it out.
        options: learning rate, batch size, seed and teacher of the fine-tuning.
        state: file from which an interrupted fine-tuning continues; whoever has kept the result removes it.
        progress: told how far the fine-tuning is.
    """
    smaller = prune(problem.module, problem.graph, mask)
    recalibrate(smaller, problem.calibration()[0])
    _, oneshot = evaluate(smaller, problem.data.test, device=problem.device)
    if not epochs:
        return Recovered(smaller, oneshot, None, [])
    teacher = problem.module if options.distill else None
    history = fit(smaller, problem, epochs, options, state, progress, recovery=True, teacher=teacher)
    _, tuned = evaluate(smaller, problem.data.test, device=problem.device)
    return Recovered(smaller, oneshot, tuned, history)


def prune_and_recover(
    problem: Problem, plan: PruningPlan, folder: Path, epochs: int, options: Search, progress: Progress
) -> dict[str, Any]:
    """Save a plan, recover its network and save that.

    Args:
        problem: the dense network and its images.
        plan: what to keep.
        folder: gets `plan.json`, `ratios.csv`, `finetune.csv` and `pruned/`.
        epochs: of fine-tuning; 0 leaves it out.
        options: learning rate, batch size, seed and teacher of the fine-tuning.
        progress: told what is going on.

    Returns:
        Accuracies on the test images (the fine-tuned one None without fine-tuning), costs and the ratio table.
    """
    table = save_plan(problem, plan, folder)
    progress.stage("pruning")
    _, dense = evaluate(problem.module, problem.data.test, device=problem.device)
    state = folder / "state" / "finetune.pt"
    after = recover(problem, plan.mask(problem.graph), epochs, options, state, progress)
    if epochs:
        write_text(folder / "finetune.csv", pd.DataFrame(after.history).to_csv(index=False))
    accuracies = {"dense_accuracy": dense, "oneshot_accuracy": after.oneshot, "finetuned_accuracy": after.tuned}
    facts = {**accuracies, **costs(problem, plan.counts())}
    save_pruned(after.module, plan, folder / "pruned", facts)
    state.unlink(missing_ok=True)
    progress.stage("timing")
    latency = quick_latency(problem.module, after.module, problem.data.image_size)
    return {**facts, **sizes(problem.module, folder / "pruned"), "latency": latency, "table": rows(table)}


def costs(problem: Problem, counts: np.ndarray) -> dict[str, Any]:
    """MACs and parameters before and after, and the kept fractions."""
    dense, pruned = problem.cost.dense, problem.cost(counts)
    return {
        "macs_ratio": float(pruned[0] / dense[0]),
        "params_ratio": float(pruned[1] / dense[1]),
        "dense_macs": int(dense[0]),
        "pruned_macs": int(pruned[0]),
        "dense_params": int(dense[1]),
        "pruned_params": int(pruned[1]),
    }


def sizes(dense: nn.Module, pruned: Path) -> dict[str, int]:
    """Bytes of the weights of the dense network, and of the file in a pruned folder."""
    tensors = named_tensors(dense).values()
    return {
        "dense_bytes": sum(tensor.nbytes for tensor in tensors),
        "pruned_bytes": (pruned / "model.safetensors").stat().st_size,
    }


def described(budgets: Sequence[Budget], problem: Problem, seconds: float) -> dict[str, Any]:
    """What a result says of its setting: one budget, or the budgets of a range."""
    return {
        "model": problem.network["model"],
        "data": problem.data.name,
        "budget": " to ".join(dict.fromkeys((str(budgets[0]), str(budgets[-1])))),
        "budget_words": describe(budgets),
        "seconds": round(seconds, 1),
    }
