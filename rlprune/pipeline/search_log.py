"""What a search tells while it measures: to the run folder, to TensorBoard and to the screen."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from rlprune.config.commands import Search
from rlprune.cost.projection import BudgetProjector
from rlprune.envs.episode import EpisodeSpec
from rlprune.evaluation.evaluator import Evaluator
from rlprune.evaluation.finetuned import FEWER, FineTunedEvaluator
from rlprune.plans.counts import plan_key, text_to_key
from rlprune.runs.folder import RunFolder
from rlprune.runs.journal import Journal
from rlprune.runs.tensorboard import TensorBoardLog
from rlprune.tasks.base import Evaluation
from rlprune.utils.progress import Progress
from rlprune.utils.text import seconds
from rlprune.workloads.workload import Workload


class SearchLog:
    """Takes everything measured to the run folder and to the screen, and what the run folder knows to who measures.

    Args:
        run: the run folder.
        workload: for the costs.
        evaluator, tuners: report here from now on.
        given: how many evaluations and tunings there may be, and how long they may take.
        progress: the screen.
        alone: there is one budget, so that there is one best plan.
        start: when the search began, by `time.perf_counter`.

    Attributes:
        stage: what evaluations are made for: sensitivity, search, or final.
        best: (groups,) the best plan so far, after tuning where plans are tuned.
    """

    def __init__(
        self,
        run: RunFolder,
        workload: Workload,
        evaluator: Evaluator,
        tuners: Sequence[FineTunedEvaluator],
        given: Search,
        progress: Progress,
        alone: bool,
        start: float,
    ) -> None:
        self.alone, self.stage = alone, "sensitivity"
        self.run, self.workload, self.progress, self.given = run, workload, progress, given
        self.evaluator, self.tuners = evaluator, tuners
        evaluator.seen |= run.episodes.known()
        evaluator.on_new = self.add
        for tuner in tuners:
            tuner.seen |= run.tunings.known(tuner.length)
            tuner.on_new = partial(self.add_tuned, tuner.length)
        self.board = TensorBoardLog(run.path / "tensorboard", workload.graph)
        self.spec: EpisodeSpec | None = None
        self.best: np.ndarray | None = None
        self.facts: dict[str, str] = {}
        self._best_value, self._best_loss = -np.inf, float("nan")
        # How dear what is measured now is: 0 for one-shot losses, then the place of the tuner, counted from 1.
        self._level = 0
        # What an interrupted search had measured on every level, until it is asked for again.
        self._known = [{text_to_key(row["counts"]) for row in run.episodes.rows if row["stage"] == "search"}]
        self._known += [set(tuner.seen) for tuner in tuners]
        self._start = start
        self._all: Callable[[], int] | None = None

    def share(self, name: str, evaluations: Callable[[], int]) -> None:
        """There are other networks: say which one this is, and how many evaluations all of them have."""
        self.facts, self._all = {"network": name}, evaluations

    def begin(self, spec: EpisodeSpec) -> None:
        """The sensitivities are measured, from now on plans of this spec (or of more than one) come."""
        self.stage = "search"
        if not self.alone:
            return
        self._count(spec)

    def project(self, projector: BudgetProjector) -> None:
        """Budget and cost are these from now on: which plan is the best so far may be another one."""
        if self.spec is not None:
            self.best, self._best_value = None, -np.inf
            self._count(replace(self.spec, projector=projector))

    def _count(self, spec: EpisodeSpec) -> None:
        """This is what counts; plans that are known, but for those of the sensitivities, are compared anew."""
        self.spec = spec
        self._compare_known(list(self.evaluator.seen.items())[self.sensitivities() :])

    def sensitivities(self) -> int:
        """How many evaluations the sensitivities took: fewer than asked for where two cuts keep the same channels."""
        return sum(row["stage"] == "sensitivity" for row in self.run.episodes.rows)

    def oneshot(self, plans: Sequence[np.ndarray]) -> list[float]:
        """One-shot losses of plans, each (groups,) kept counts."""
        return self._losses(self.evaluator.evaluate(plans), plans, self._known[0])

    def tuned(self, level: int, plans: Sequence[np.ndarray]) -> list[float]:
        """Losses of plans after the fine-tuning of a level, of which 1 is the briefest."""
        tuner = self.tuners[level - 1]
        if level > self._level:
            self._level, self._best_value = level, -np.inf
            number = self.given.tunings and self.given.tunings // FEWER ** (level - 1)
            self.progress.stage(f"tuning plans on {tuner.length}", number, len(tuner.seen))
            self._compare_known(tuner.seen.items())
        return self._losses(tuner(plans), plans, self._known[level])

    @staticmethod
    def _losses(found: list[Evaluation], plans: Sequence[np.ndarray], known: set[tuple[int, ...]]) -> list[float]:
        known.difference_update(map(plan_key, plans))
        return [evaluation.loss for evaluation in found]

    def over(self, share: float) -> bool:
        """Whether a share of the time has passed; an interrupted search first comes to where it was."""
        if self.given.time is None or self._known[self._level]:
            return False
        if any(self._known[self._level + 1 :]):
            return True
        return time.perf_counter() - self._start > share * seconds(self.given.time)

    def add(self, counts: np.ndarray, evaluation: Evaluation) -> None:
        """Log one evaluation of (groups,) kept counts."""
        final = self.stage == "final"
        if self.spec is not None and not final:
            self._compare(counts, evaluation)
        ratios = self._enter(self.run.episodes, counts, evaluation, self.stage, None if final else self._lowest())
        if not final:
            self.board.add(len(self.run.episodes), evaluation, ratios, self.best, self._best_loss)
            self._tell(self._all() if self._all else len(self.run.episodes), ratios)

    def add_tuned(self, length: str, counts: np.ndarray, evaluation: Evaluation) -> None:
        """Log what a fine-tuning of some length has left of (groups,) kept counts."""
        self._compare(counts, evaluation)
        ratios = self._enter(self.run.tunings, counts, evaluation, length, self._lowest())
        self._tell(len(self.tuners[self._level - 1].seen), ratios)

    def _lowest(self) -> float | None:
        return None if self.best is None else self._best_loss

    def _enter(
        self, journal: Journal, counts: np.ndarray, evaluation: Evaluation, stage: str, best: float | None
    ) -> np.ndarray:
        """Write a line; returns the kept fractions in it."""
        ratios = self.workload.cost.ratios(counts)
        journal.add(counts, evaluation, ratios, stage, best, time.perf_counter() - self._start)
        return ratios

    def _tell(self, done: int, ratios: np.ndarray) -> None:
        self.progress.update(done, **self.facts, kept=f"{100 * ratios[0]:.1f} % MACs")

    def _compare_known(self, known: Iterable[tuple[tuple[int, ...], Evaluation]]) -> None:
        for counts, evaluation in known:
            self._compare(np.array(counts), evaluation)

    def _compare(self, counts: np.ndarray, evaluation: Evaluation) -> None:
        assert self.spec is not None
        if not self.spec.projector.fits(counts[None])[0]:
            return
        value = float(self.spec.value(counts[None], np.array([evaluation.loss]))[0])
        if value > self._best_value:
            self.best, self._best_value, self._best_loss = counts, value, evaluation.loss
            self.facts |= {"best_loss": f"{evaluation.loss:.3f}", "accuracy": f"{100 * evaluation.accuracy:.1f} %"}
