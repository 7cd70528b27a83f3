"""Who is told of every plan that a search measures: the run folder, TensorBoard, the screen."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from rlprune.graph.structure import Graph
from rlprune.pipeline.best_plan import BestPlan
from rlprune.runs.folder import RunFolder
from rlprune.runs.tensorboard import TensorBoardLog
from rlprune.tasks.base import Evaluation
from rlprune.utils.progress import Progress

FINAL = "final"
"""The stage after a search, whose evaluations are no longer compared."""


@dataclass(frozen=True)
class MeasuredPlan:
    """A plan as it was measured.

    Attributes:
        counts: (groups,) kept channels.
        evaluation: loss and score.
        ratios: (resources,) what is kept of the dense network.
        stage: what it was measured for, or the length of its fine-tuning.
        tuned: how many plans have been fine-tuned so long, None for a one-shot evaluation.
    """

    counts: np.ndarray
    evaluation: Evaluation
    ratios: np.ndarray
    stage: str
    tuned: int | None = None


class Observer(Protocol):
    """Is told of every plan."""

    def measured(self, plan: MeasuredPlan, best: BestPlan) -> None:
        """A plan was measured; `best` has been compared with it."""


class JournalObserver:
    """Enters every plan into `episodes.csv` or `tunings.csv`.

    Args:
        run: the run folder.
        start: when the search began, by `time.perf_counter`.
    """

    def __init__(self, run: RunFolder, start: float) -> None:
        self.run, self.start = run, start

    def measured(self, plan: MeasuredPlan, best: BestPlan) -> None:
        """See `Observer.measured`."""
        journal = self.run.episodes if plan.tuned is None else self.run.tunings
        loss = None if plan.stage == FINAL else best.loss
        journal.add(plan.counts, plan.evaluation, plan.ratios, plan.stage, loss, time.perf_counter() - self.start)


class TensorBoardObserver:
    """Draws one-shot evaluations for TensorBoard.

    Args:
        folder: for its files.
        graph: names the groups.
        number: how many evaluations there are.
    """

    def __init__(self, folder: Path, graph: Graph, number: Callable[[], int]) -> None:
        self.log, self.number = TensorBoardLog(folder, graph), number

    def measured(self, plan: MeasuredPlan, best: BestPlan) -> None:
        """See `Observer.measured`."""
        if plan.tuned is None and plan.stage != FINAL:
            self.log.add(self.number(), plan.evaluation, plan.ratios, best.counts, best.evaluation.loss)


class ProgressObserver:
    """Tells the screen how far the search is, and how good its best plan.

    Args:
        progress: the screen.
        number: how many evaluations there are.
        network: its name, where there are several.
    """

    def __init__(self, progress: Progress, number: Callable[[], int], network: str | None = None) -> None:
        self.progress, self.number = progress, number
        self.facts = {} if network is None else {"network": network}

    def measured(self, plan: MeasuredPlan, best: BestPlan) -> None:
        """See `Observer.measured`."""
        if plan.stage == FINAL:
            return
        done = self.number() if plan.tuned is None else plan.tuned
        if best.counts is not None:
            found = best.evaluation
            self.facts |= {"best_loss": f"{found.loss:.3f}", "accuracy": f"{100 * found.accuracy:.1f} %"}
        self.progress.update(done, **self.facts, kept=f"{100 * plan.ratios[0]:.1f} % MACs")
