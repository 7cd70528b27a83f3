"""The rules of a contest of search methods: one evaluator, one budget, one number of evaluations for all.

A method gets an `Entry` and asks it to evaluate plans. The entry counts, takes the time and remembers the best plan
inside the budget, which is the method's result, whatever the method itself thinks of it.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from rlprune.agents.preparation import base_wishes
from rlprune.allocators.sensitivity import Sensitivity, allocate, measure
from rlprune.budget import Lander
from rlprune.evaluator import Evaluation, Evaluator
from rlprune.plan import plan_key
from rlprune.problem import Problem

PATIENCE = 20
"""Rounds without a new plan after which a method has nothing left to measure."""
Logged = Callable[[np.ndarray, Evaluation, float], None]


@dataclass
class Bank:
    """Every plan that anybody has measured: run once, and charged in full to everyone who asks for it.

    Attributes:
        evaluator: scores plans, and remembers them.
        seconds: how long each of them took, by kept counts.
        on_new: told the counts, the evaluation and the seconds of every plan that had to be run.
    """

    evaluator: Evaluator
    seconds: dict[tuple[int, ...], float] = field(default_factory=dict)
    on_new: Logged = lambda counts, evaluation, seconds: None

    def __call__(self, counts: np.ndarray) -> tuple[Evaluation, float]:
        """The evaluation of (groups,) kept counts, and the seconds it takes."""
        key = plan_key(counts)
        if key not in self.seconds:
            start = time.perf_counter()
            evaluation = self.evaluator(counts)
            self.seconds[key] = time.perf_counter() - start
            self.on_new(counts, evaluation, self.seconds[key])
        return self.evaluator(counts), self.seconds[key]


class Entry(Evaluator):
    """What one method with one seed gets to see; used like the evaluator that it stands for.

    Args:
        bank: measures.
        problem: network and images.
        lander: budget and cost.
        method: its name.
        seed: of everything the method draws.
        evaluations: how many plans it may measure; asking again for a plan costs nothing.
        on_step: told of every evaluation, with the entry.
    """

    def __init__(
        self,
        bank: Bank,
        problem: Problem,
        lander: Lander,
        method: str,
        seed: int,
        evaluations: int,
        on_step: Callable[["Entry"], None] = lambda entry: None,
    ) -> None:
        shared = bank.evaluator
        super().__init__(shared.runner, shared.scores, shared.images, shared.labels)
        self.bank, self.problem, self.lander = bank, problem, lander
        self.method, self.seed, self.evaluations = method, seed, evaluations
        self.on_step = on_step
        self.best: np.ndarray | None = None
        self.result = Evaluation(np.inf, 0.0)
        self.curve: dict[int, float] = {}
        self._choosing = False
        self._charged = self._waited = 0.0
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
            self.seen[key], seconds = self.bank(counts)
            self._waited += time.perf_counter() - start
            self._charged += seconds
        if self._choosing:
            self._compare(counts, self.seen[key])
        if new:
            self.on_step(self)
        return self.seen[key]

    def _compare(self, counts: np.ndarray, evaluation: Evaluation) -> None:
        if not self.lander.fits(counts):
            raise RuntimeError(f"{self.method} offers a plan above the budget: {counts.tolist()}")
        if evaluation.loss < self.result.loss:
            self.best, self.result = np.array(counts), evaluation
        self.curve[len(self.seen)] = self.result.loss

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

        An evaluation that another method paid for before counts as if it had been run again.
        """
        own = time.perf_counter() - self._start - self._waited
        return own + self._charged, own


def rounds(entry: Entry) -> Iterator[None]:
    """As many rounds as there are evaluations left for them, and new plans to spend these on."""
    fruitless = 0
    while entry.left and fruitless < PATIENCE:
        before = entry.left
        yield
        fruitless = 0 if entry.left < before else fruitless + 1


def sensitivity_plan(entry: Entry) -> None:
    """Measure the sensitivities, and the plan of the sensitivity rule."""
    wished = allocate(_sensitivity(entry), entry.lander)
    entry(entry.lander.land(wished[None])[0])


def base_plan(entry: Entry) -> np.ndarray:
    """Measure the sensitivities and the base plans of every kind; a search starts around the best of them.

    Returns:
        (groups,) its counts as floats, near the budget.
    """
    wishes = base_wishes(_sensitivity(entry), entry.lander)
    losses = entry.measure(entry.lander.land(np.array(wishes)))
    return wishes[int(np.argmin(losses))]


def _sensitivity(entry: Entry) -> Sensitivity:
    sensitivity = measure(lambda counts: entry(counts).loss, entry.lander)
    entry.begin()
    return sensitivity


def around(lander: Lander, base: np.ndarray, logs: np.ndarray) -> np.ndarray:
    """(plans, groups) logarithms of multipliers on (groups,) base counts -> the landed plans."""
    return lander.land(np.minimum(base * np.exp(logs), lander.sizes))
