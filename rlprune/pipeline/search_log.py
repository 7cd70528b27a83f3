"""What a search measures, told to its observers; and what its run folder knows, told to the search."""

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from rlprune.config.commands import Search
from rlprune.cost.projection import BudgetProjector
from rlprune.envs.episode import EpisodeSpec
from rlprune.evaluation.evaluator import Evaluator
from rlprune.evaluation.finetuned import FEWER, FineTunedEvaluator
from rlprune.methods.allocators.base_plans import KINDS
from rlprune.pipeline.best_plan import BestPlan
from rlprune.pipeline.observers import (
    FINAL,
    JournalObserver,
    MeasuredPlan,
    Observer,
    ProgressObserver,
    TensorBoardObserver,
)
from rlprune.plans.counts import not_in, plan_key, text_to_key
from rlprune.runs.folder import RunFolder
from rlprune.tasks.base import Evaluation
from rlprune.utils.progress import Progress
from rlprune.utils.text import seconds
from rlprune.workloads.workload import Workload


class SearchLog:
    """Stands between who measures plans and who is told of them.

    Args:
        run: the run folder; what it knows is not measured again.
        workload: for the costs.
        evaluator, tuners: report here from now on.
        given: how many evaluations and tunings there may be, and how long they may take.
        progress: the screen.
        alone: there is one budget, so that there is one best plan.
        start: when the search began, by `time.perf_counter`.
        network: its name, and how many evaluations all have, where there are several.

    Attributes:
        stage: what evaluations are made for: sensitivity, search, or final.
        best: the best plan so far, after tuning where plans are tuned.
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
        network: tuple[str, Callable[[], int]] | None = None,
    ) -> None:
        self.alone, self.stage, self.best = alone, "sensitivity", BestPlan()
        # Of the plans that are tuned apart from the search.
        self._best_apart = BestPlan()
        self.run, self.workload, self.progress, self.given = run, workload, progress, given
        self.evaluator, self.tuners = evaluator, tuners
        evaluator.seen |= run.episodes.known()
        evaluator.on_new = self._evaluated
        for tuner in tuners:
            tuner.seen |= run.tunings.known(tuner.length)
            tuner.on_new = partial(self._tuned, tuner)

        def number() -> int:
            return len(run.episodes)

        name, everywhere = network or (None, number)
        self.observers: list[Observer] = [
            JournalObserver(run, start),
            TensorBoardObserver(run.path / "tensorboard", workload.graph, number),
            ProgressObserver(progress, everywhere, name),
        ]
        # How dear what is measured now is: 0 for one-shot losses, then the place of the tuner, counted from 1.
        self._fidelity = 0
        # What an interrupted search had measured in every fidelity, until it is asked for again.
        self._known = [{text_to_key(row["counts"]) for row in run.episodes.rows if row["stage"] == "search"}]
        self._known += [set(tuner.seen) for tuner in tuners]
        self._start = start

    def begin(self, spec: EpisodeSpec) -> None:
        """The sensitivities are measured, from now on plans for these episodes come."""
        self.stage = "search"
        if self.alone:
            self.best.count(spec, self._searched())
            self._best_apart.count(spec, self.tuners[0].seen.items())

    def project(self, projector: BudgetProjector) -> None:
        """Budget and cost are these from now on."""
        self.best.project(projector, self._searched())
        self._best_apart.project(projector, self.tuners[0].seen.items())

    def end(self) -> None:
        """Evaluations from now on are of what the search has found."""
        self.stage = FINAL

    def sensitivities(self) -> int:
        """How many evaluations the sensitivities took: fewer than asked for where two cuts keep the same channels."""
        return sum(row["stage"] == "sensitivity" for row in self.run.episodes.rows)

    def oneshot(self, plans: Sequence[np.ndarray]) -> list[float]:
        """One-shot losses of plans, each (groups,) kept counts."""
        return self._losses(self.evaluator.evaluate(plans), plans, self._known[0])

    def base_tunings(self, plans: Sequence[np.ndarray]) -> list[float]:
        """Losses of the base plans after brief fine-tunings, where those before do not tell which is to be walked.

        They are no part of the search: the best plan so far is one of those that were measured before any.
        """
        tuner = self.tuners[0]
        losses = self._tuned_apart(tuner, plans, f"tuning base plans on {tuner.length}")
        self.progress.stage("searching", self.given.evaluations, len(self.evaluator.seen))
        oneshot = [evaluation.loss for evaluation in self.evaluator.evaluate(plans)]
        told = ", ".join(f"{KINDS[kind]} {loss:.3f}" for kind, loss in enumerate(oneshot))
        after = ", ".join(f"{loss:.3f}" for loss in losses)
        self.progress.note(f"losses of base plans say too little ({told}): {after} after brief fine-tunings")
        return losses

    def final_tunings(self, tuner: FineTunedEvaluator, plans: Sequence[np.ndarray]) -> list[float]:
        """Losses after brief fine-tunings of the plans that a search may end on; no part of it either."""
        self._best_apart.restart(tuner.seen.items())
        return self._tuned_apart(tuner, plans, f"choosing between {len(plans)} plans, tuned on {tuner.length}")

    def _tuned_apart(self, tuner: FineTunedEvaluator, plans: Sequence[np.ndarray], stage: str) -> list[float]:
        if new := not_in(tuner.seen, plans):
            self.progress.stage(stage, len(plans), len(plans) - len(new))
        return self._losses(tuner(plans), plans, self._known[self.tuners.index(tuner) + 1])

    def tuned(self, fidelity: int, plans: Sequence[np.ndarray]) -> list[float]:
        """Losses of plans after a fine-tuning, of which that of fidelity 1 is the briefest."""
        tuner = self.tuners[fidelity - 1]
        if fidelity > self._fidelity:
            self._fidelity = fidelity
            number = self.given.tunings and self.given.tunings // FEWER ** (fidelity - 1)
            self.progress.stage(f"tuning plans on {tuner.length}", number, len(tuner.seen))
            self.best.restart(tuner.seen.items())
        return self._losses(tuner(plans), plans, self._known[fidelity])

    @staticmethod
    def _losses(found: list[Evaluation], plans: Sequence[np.ndarray], known: set[tuple[int, ...]]) -> list[float]:
        known.difference_update(map(plan_key, plans))
        return [evaluation.loss for evaluation in found]

    def over(self, share: float) -> bool:
        """Whether a share of the time has passed; an interrupted search first comes to where it was."""
        if self.given.time is None or self._known[self._fidelity]:
            return False
        if any(self._known[self._fidelity + 1 :]):
            return True
        return time.perf_counter() - self._start > share * seconds(self.given.time)

    def _searched(self) -> list[tuple[tuple[int, ...], Evaluation]]:
        """Plans that are known, but for those of the sensitivities."""
        return list(self.evaluator.seen.items())[self.sensitivities() :]

    def _evaluated(self, counts: np.ndarray, evaluation: Evaluation) -> None:
        self._tell(MeasuredPlan(counts, evaluation, self.workload.cost.ratios(counts), self.stage), self.best)

    def _tuned(self, tuner: FineTunedEvaluator, counts: np.ndarray, evaluation: Evaluation) -> None:
        ratios = self.workload.cost.ratios(counts)
        best = self.best if self._fidelity else self._best_apart
        self._tell(MeasuredPlan(counts, evaluation, ratios, tuner.length, len(tuner.seen)), best)

    def _tell(self, plan: MeasuredPlan, best: BestPlan) -> None:
        if plan.stage != FINAL:
            best.compare(plan.counts, plan.evaluation)
        for observer in self.observers:
            observer.measured(plan, best)
