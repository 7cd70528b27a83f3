"""What a search searches: networks, and under every budget of each the plans that were measured or imagined."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np

from rlprune.agents.search.surrogate import Measured
from rlprune.cost.projection import BudgetProjector
from rlprune.envs.episode import EpisodeSpec, Score

Measure = Callable[[Sequence[np.ndarray]], Sequence[float]]
"""Plans, each (groups,) kept counts -> their losses; the expensive part."""
Correct = Callable[[np.ndarray], BudgetProjector]
"""The best plan so far, (groups,) kept counts -> the budget and the cost from now on."""


@dataclass(frozen=True)
class Target:
    """One network of a search.

    Attributes:
        specs: what is walked and what counts; one a budget.
        measure: plans -> losses on the search split.
        foretell: the additive model, (plans, groups) keep ratios -> (plans,) rises of the loss.
        starts: for each of them (groups,) plans that are measured first.
        correct: of the only spec, where its cost is a forecast that can be compared with the truth.
    """

    specs: Sequence[EpisodeSpec]
    measure: Measure
    foretell: Callable[[np.ndarray], np.ndarray]
    starts: Sequence[Sequence[np.ndarray]] = ()
    correct: Correct | None = None


class Surrogate(Protocol):
    """What is believed of the plans of a network that were not measured."""

    def fit(self, budgets: Sequence[Measured]) -> None:
        """Learn from all measured plans."""

    def mean(self, counts: np.ndarray, budget: int = 0) -> np.ndarray:
        """(plans,) expected losses."""

    def predict(self, counts: np.ndarray, budget: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """(plans,) expected losses and how far off they may be."""


class PlanArchive:
    """One network under one budget: every plan that was measured or imagined there.

    Args:
        spec: what counts.
        measure: the expensive part.
        model: of the network, shared by its budgets.
        budget: its place among them.
    """

    def __init__(self, spec: EpisodeSpec, measure: Measure, model: Surrogate, budget: int = 0) -> None:
        self.spec = spec
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
        return np.where(self.spec.projector.fits(counts), self.spec.value(counts, losses), -np.inf)

    def best(self, number: int) -> np.ndarray:
        """Indices of the plans with the highest values, best first."""
        values, fits = self.values(), self.spec.projector.fits(self.measured()[0])
        return np.lexsort((-values, ~fits))[: min(number, int(fits.sum()))]

    def project(self, projector: BudgetProjector, most: int) -> None:
        """Budget and cost are these now; the best plan so far is projected onto them, if it may be measured."""
        plan = self.counts[self.best(1)[0]].astype(float)
        self.spec = replace(self.spec, projector=projector)
        self.add([self.spec.finish(plan[None])[0]], most)

    def expected_reward(self, counts: np.ndarray) -> np.ndarray:
        """(plans,) rewards of walks that end in (plans, groups) kept counts, by the model as it is now."""
        return self.spec.reward(counts, self.model.mean(counts, self.budget))

    def imagined_score(self) -> Score:
        """The forecast losses of imagined plans, which are remembered."""
        mean = partial(self.model.mean, budget=self.budget)

        def score(counts: np.ndarray) -> np.ndarray:
            self.imagined.append(counts.copy())
            return mean(counts)

        return score


def steps_of(archives: Sequence[PlanArchive]) -> int:
    """Steps of the longest walk."""
    return max(len(archive.spec.steps) for archive in archives)


def fit(archives: Sequence[PlanArchive]) -> None:
    """Let the model of every network learn from all its budgets."""
    for model in dict.fromkeys(archive.model for archive in archives):
        model.fit([archive.measured() for archive in archives if archive.model is model])
