"""What a search searches: networks, and under every budget of each the plans that were measured or imagined."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np

from rlprune.agents.reward_model import Measured
from rlprune.budget import Lander
from rlprune.envs.walk import Score, Task

Measure = Callable[[Sequence[np.ndarray]], Sequence[float]]
"""Plans, each (groups,) kept counts -> their losses; the expensive part."""
Correct = Callable[[np.ndarray], Lander]
"""The best plan so far, (groups,) kept counts -> the budget and the cost from now on."""


@dataclass(frozen=True)
class Target:
    """One network of a search.

    Attributes:
        tasks: what is walked and what counts; one a budget.
        measure: plans -> losses on the search split.
        foretell: the additive model, (plans, groups) keep ratios -> (plans,) rises of the loss.
        starts: for every task (groups,) plans that are measured first.
        correct: of the only task, where its cost is a forecast that can be compared with the truth.
    """

    tasks: Sequence[Task]
    measure: Measure
    foretell: Callable[[np.ndarray], np.ndarray]
    starts: Sequence[Sequence[np.ndarray]] = ()
    correct: Correct | None = None


class Model(Protocol):
    """What is believed of the plans of a network that were not measured."""

    def fit(self, budgets: Sequence[Measured]) -> None:
        """Learn from all measured plans."""

    def mean(self, counts: np.ndarray, budget: int = 0) -> np.ndarray:
        """(plans,) expected losses."""

    def predict(self, counts: np.ndarray, budget: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """(plans,) expected losses and how far off they may be."""


class Level:
    """One network under one budget: every plan that was measured or imagined there.

    Args:
        task: what counts.
        measure: the expensive part.
        model: of the network, shared by its budgets.
        budget: its place among them.
    """

    def __init__(self, task: Task, measure: Measure, model: Model, budget: int = 0) -> None:
        self.task = task
        self.measure = measure
        self.model, self.budget = model, budget
        self.counts: list[np.ndarray] = []
        self.losses: list[float] = []
        self.imagined: list[np.ndarray] = []
        self._seen: set[bytes] = set()

    def __len__(self) -> int:
        return len(self.counts)

    def __contains__(self, counts: np.ndarray) -> bool:
        return counts.tobytes() in self._seen

    def add(self, plans: Sequence[np.ndarray], most: int) -> None:
        """Measure the first plans that are not known, so many at most."""
        new: list[np.ndarray] = []
        for counts in plans:
            if counts not in self and len(new) < most:
                self._seen.add(counts.tobytes())
                new.append(counts)
        self.losses += self.measure(new)
        self.counts += new

    def measured(self) -> Measured:
        """(plans, groups) counts and (plans,) losses."""
        return np.array(self.counts), np.array(self.losses)

    def values(self) -> np.ndarray:
        """(plans,) values of all that were measured, none where the budget as it is now is not met."""
        counts, losses = self.measured()
        return np.where(self.task.lander.fits(counts), self.task.value(counts, losses), -np.inf)

    def best(self, number: int) -> np.ndarray:
        """Indices of the plans with the highest values, best first."""
        values, fits = self.values(), self.task.lander.fits(self.measured()[0])
        return np.lexsort((-values, ~fits))[: min(number, int(fits.sum()))]

    def land(self, lander: Lander, most: int) -> None:
        """From now on budget and cost are these; the best plan so far is landed on them, if one may be measured."""
        plan = self.counts[self.best(1)[0]].astype(float)
        self.task = replace(self.task, lander=lander)
        self.add([self.task.finish(plan[None])[0]], most)

    def dreaming(self) -> Score:
        """The forecast losses of imagined plans, which are remembered."""
        mean = partial(self.model.mean, budget=self.budget)

        def score(counts: np.ndarray) -> np.ndarray:
            self.imagined.append(counts.copy())
            return mean(counts)

        return score


def fit(levels: Sequence[Level]) -> None:
    """Let the model of every network learn from all its budgets."""
    for model in dict.fromkeys(level.model for level in levels):
        model.fit([level.measured() for level in levels if level.model is model])
