"""Prune for real, repair, fine-tune, measure on the test images, save."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from rlprune.artifacts.pruned import save_pruned
from rlprune.config.commands import Search
from rlprune.evaluation.sliced import recalibrate
from rlprune.latency.timing import quick_latency
from rlprune.methods.recovery.base import Repairs
from rlprune.methods.units.channel import Channel
from rlprune.pipeline.plans import save_plan
from rlprune.pipeline.results import costs, sizes, unit_of
from rlprune.plans.plan import PruningPlan
from rlprune.plans.ratio_table import rows
from rlprune.runs.folder import date_of
from rlprune.training.loop import evaluate
from rlprune.utils.files import write_text
from rlprune.utils.progress import Progress
from rlprune.workloads.dense import fit
from rlprune.workloads.workload import Workload


@dataclass(frozen=True)
class Recovered:
    """A pruned network, its accuracy on the test images before and after fine-tuning (or None), and its course."""

    module: nn.Module
    oneshot: float
    tuned: float | None
    history: list[dict[str, float]]


def cut_and_repaired(workload: Workload, mask: np.ndarray, repair: str) -> nn.Module:
    """What is left of a network, as it is evaluated.

    Args:
        workload: the dense network and its images.
        mask: (all groups' channels,) bool, True where a channel stays.
        repair: names of repairs; of other units than channels batch norm alone is recalibrated.
    """
    if isinstance(workload.unit, Channel):
        return Repairs(repair, workload.module, workload.graph, workload.calibration()[0]).cut(mask)
    smaller = workload.cut(mask)
    recalibrate(smaller, workload.calibration()[0])
    return smaller


def recover(
    workload: Workload, mask: np.ndarray, epochs: int, options: Search, state: Path, progress: Progress
) -> Recovered:
    """Prune, repair and fine-tune; the test images are looked at here and nowhere else.

    Args:
        workload: the dense network and its images.
        mask: (all groups' channels,) bool, True where a channel stays.
        epochs: of fine-tuning; 0 leaves it out.
        options: repairs; learning rate, batch size, seed and teacher of the fine-tuning.
        state: file from which an interrupted fine-tuning continues; whoever has kept the result removes it.
        progress: told how far the fine-tuning is.
    """
    smaller = cut_and_repaired(workload, mask, options.repair)
    _, oneshot = evaluate(smaller, workload.data.test, device=workload.device)
    if not epochs:
        return Recovered(smaller, oneshot, None, [])
    teacher = workload.module if options.distills else None
    history = fit(smaller, workload, epochs, options, state, progress, recovery=True, teacher=teacher)
    _, tuned = evaluate(smaller, workload.data.test, device=workload.device)
    return Recovered(smaller, oneshot, tuned, history)


def prune_and_recover(
    workload: Workload, plan: PruningPlan, folder: Path, epochs: int, options: Search, progress: Progress
) -> dict[str, Any]:
    """Save a plan, recover its network and save that.

    Args:
        workload: the dense network and its images.
        plan: what to keep.
        folder: gets `plan.json`, `ratios.csv`, `finetune.csv` and `pruned/`.
        epochs: of fine-tuning; 0 leaves it out.
        options: repairs; learning rate, batch size, seed and teacher of the fine-tuning.
        progress: told what is going on.

    Returns:
        Accuracies on the test images (the fine-tuned one None without fine-tuning), costs and the ratio table.
    """
    table = save_plan(workload, plan, folder)
    progress.stage("pruning")
    dense = workload.dense_accuracy()
    state = folder / "state" / "finetune.pt"
    after = recover(workload, plan.mask(workload.graph), epochs, options, state, progress)
    if epochs:
        write_text(folder / "finetune.csv", pd.DataFrame(after.history).to_csv(index=False))
    accuracies = {"dense_accuracy": dense, "oneshot_accuracy": after.oneshot, "finetuned_accuracy": after.tuned}
    facts = {**accuracies, **costs(workload, plan.counts())}
    save_pruned(after.module, plan, folder / "pruned", facts, date_of(folder))
    state.unlink(missing_ok=True)
    progress.stage("timing")
    latency = quick_latency(workload.module, after.module, workload.data.shape)
    told = {**unit_of(plan), **facts, **sizes(workload.module, folder / "pruned")}
    return {**told, "latency": latency, "table": rows(table)}
