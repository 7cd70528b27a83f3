"""Evaluations under a count: one evaluator, one budget and one number of evaluations for every allocator."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from rlprune.cost.projection import BudgetProjector
from rlprune.evaluation.evaluator import Evaluator
from rlprune.evaluation.network import PreparedNetwork
from rlprune.plans.counts import plan_key
from rlprune.tasks.base import Evaluation

Logged = Callable[[np.ndarray, Evaluation, float], None]


def _unscored(criterion: str) -> np.ndarray:
    raise RuntimeError(f"nobody has said how to score by {criterion}: EvaluationCache(..., score=...)")


@dataclass
class EvaluationCache:
    """Every plan that anybody has measured: run once, and charged in full to everyone who asks for it.

    Attributes:
        evaluator: scores plans, and remembers them.
        seconds: how long each of them took, by kept counts.
        on_new: told the counts, the evaluation and the seconds of every plan that had to be run.
        score: a criterion by its name, maybe with settings -> (all groups' channels,) scores of the dense network, for
            methods that share out by another criterion than the one that says which channels stay.
        scored: scores by criterion, with the seconds that they took.
        complete: makes of (groups,) kept counts, which is all that some methods decide, the plan that is evaluated.
    """

    evaluator: Evaluator
    seconds: dict[tuple[int, ...], float] = field(default_factory=dict)
    on_new: Logged = lambda counts, evaluation, seconds: None
    score: Callable[[str], np.ndarray] = _unscored
    scored: dict[str, tuple[np.ndarray, float]] = field(default_factory=dict)
    complete: Callable[[np.ndarray], np.ndarray] = lambda counts: counts

    def __call__(self, counts: np.ndarray) -> tuple[Evaluation, float]:
        """The evaluation of a plan, and the seconds it takes."""
        counts = self.complete(counts)
        key = plan_key(counts)
        if key not in self.seconds:
            start = time.perf_counter()
            evaluation = self.evaluator(counts)
            self.seconds[key] = time.perf_counter() - start
            self.on_new(counts, evaluation, self.seconds[key])
        return self.evaluator(counts), self.seconds[key]


@dataclass(frozen=True)
class Allocation:
    """What an allocator ends with.

    Attributes:
        counts: (groups,) kept channels.
        remark: what went wrong, such as a policy that collapsed, or empty.
    """

    counts: np.ndarray
    remark: str = ""


class AllocationProblem:
    """What one allocator with one seed gets to see; used like the evaluator that it stands for.

    Args:
        cache: measures.
        workload: network and images.
        projector: budget and cost.
        method: its name.
        seed: of everything the method draws.
        evaluations: how many plans it may measure; asking again for a plan costs nothing.
        on_step: told of every evaluation, with the problem.
        decisions: what agents decide, by name; other methods decide channels alone.

    Attributes:
        scores: (all groups' channels,) from the criterion.
    """

    def __init__(
        self,
        cache: EvaluationCache,
        workload: PreparedNetwork,
        projector: BudgetProjector,
        method: str,
        seed: int,
        evaluations: int,
        on_step: Callable[["AllocationProblem"], None] = lambda problem: None,
        decisions: Sequence[str] = ("channels",),
    ) -> None:
        # Of several criteria the first: who decides kept counts alone has no other.
        self.scores = np.atleast_2d(cache.evaluator.scores)[0]
        self.seen: dict[tuple[int, ...], Evaluation] = {}
        self.cache, self.workload, self.projector = cache, workload, projector
        self.method, self.seed, self.evaluations = method, seed, evaluations
        self.on_step, self.decisions = on_step, tuple(decisions)
        self.best: np.ndarray | None = None
        self.result = Evaluation(np.inf, 0.0)
        self.curve: dict[int, float] = {}
        self._choosing = False
        self._charged = self._waited = self._borrowed = 0.0
        self._start = time.perf_counter()

    @property
    def left(self) -> int:
        """How many more plans may be measured."""
        return self.evaluations - len(self.seen)

    def begin(self) -> None:
        """From now on every plan that is evaluated is one that the method may end with; before, it only probes."""
        self._choosing = True

    def __call__(self, counts: np.ndarray) -> Evaluation:
        """Evaluate one plan.

        Args:
            counts: (groups,) kept channels.

        Raises:
            RuntimeError: the method breaks the rules: too many evaluations, or a plan above the budget.
        """
        key = plan_key(counts)
        new = key not in self.seen
        if new:
            if not self.left:
                raise RuntimeError(f"{self.method} asks for more than {self.evaluations} evaluations")
            start = time.perf_counter()
            self.seen[key], seconds = self.cache(counts)
            self._waited += time.perf_counter() - start
            self._charged += seconds
        if self._choosing:
            self._compare(counts, self.seen[key])
        if new:
            self.on_step(self)
        return self.seen[key]

    def _compare(self, counts: np.ndarray, evaluation: Evaluation) -> None:
        if not self.projector.fits(counts):
            raise RuntimeError(f"{self.method} offers a plan above the budget: {counts.tolist()}")
        if evaluation.loss < self.result.loss:
            self.best, self.result = np.array(counts), evaluation
        self.curve[len(self.seen)] = self.result.loss

    def scores_by(self, criterion: str) -> np.ndarray:
        """(all groups' channels,) scores by a criterion of the method's own, whatever says which channels stay.

        Args:
            criterion: its name, maybe with settings.

        Raises:
            UserError: it does not apply to this network.
        """
        start = time.perf_counter()
        if criterion not in self.cache.scored:
            scores = self.cache.score(criterion)
            self.cache.scored[criterion] = scores, time.perf_counter() - start
        scores, seconds = self.cache.scored[criterion]
        self._borrowed += seconds - (time.perf_counter() - start)
        return scores

    def evaluate(self, plans: Sequence[np.ndarray]) -> list[Evaluation]:
        """Evaluate plans, each (groups,) kept channels, in their order."""
        return [self(counts) for counts in plans]

    def losses(self, plans: Sequence[np.ndarray]) -> list[float]:
        """Their losses alone."""
        return [evaluation.loss for evaluation in self.evaluate(plans)]

    def probe(self, plans: Sequence[np.ndarray]) -> list[float]:
        """Losses of plans that may be above the budget, and that the method does not end with."""
        choosing, self._choosing = self._choosing, False
        try:
            return self.losses(plans)
        finally:
            self._choosing = choosing

    def allocation(self, remark: str = "") -> Allocation:
        """The best plan so far as the allocator's result."""
        assert self.best is not None
        return Allocation(self.best, remark)

    def measure(self, plans: Iterable[np.ndarray]) -> np.ndarray:
        """Losses of plans, in their order, as far as the evaluations go: fewer than plans where they end."""
        losses = []
        for counts in plans:
            if not self.left and plan_key(counts) not in self.seen:
                break
            losses.append(self(counts).loss)
        return np.array(losses)

    def times(self) -> tuple[float, float]:
        """Seconds the method takes on its own, and seconds of it that are not spent in evaluations.

        What another method paid for before, an evaluation or scores, counts as if it had been run again.
        """
        own = time.perf_counter() - self._start - self._waited + self._borrowed
        return own + self._charged, own
