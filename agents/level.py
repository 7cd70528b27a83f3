"""What a search searches: networks, and under every budget of each the plans that were measured or imagined."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from rlprune.agents.reward_model import Measured
from rlprune.envs.walk import Score, Task

Measure = Callable[[Sequence[np.ndarray]], Sequence[float]]
"""Plans, each (groups,) kept counts -> their losses; the expensive part."""


@dataclass(frozen=True)
class Target:
    """One network of a search.

    Attributes:
        tasks: what is walked and what counts; one a budget.
        measure: plans -> losses on the search split.
        foretell: the additive model, (plans, groups) keep ratios -> (plans,) rises of the loss.
        starts: for every task (groups,) plans that are measured first.
    """

    tasks: Sequence[Task]
    measure: Measure
    foretell: Callable[[np.ndarray], np.ndarray]
    starts: Sequence[Sequence[np.ndarray]] = ()


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

    def best(self, number: int) -> np.ndarray:
        """Indices of the plans with the highest values, best first."""
        return np.argsort(-self.task.value(*self.measured()), kind="stable")[:number]

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
