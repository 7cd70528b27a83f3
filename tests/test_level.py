"""What was measured is kept in order, and a model learns from the budgets of its own network alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from toys import make_task

from rlprune.agents.level import Level, fit
from rlprune.agents.reward_model import Measured


class Noted:
    """A model that remembers what it was taught, and believes in the sum of the channels."""

    def __init__(self) -> None:
        self.taught: Any = None

    def fit(self, budgets: Sequence[Measured]) -> None:
        self.taught = [(counts.tolist(), losses.tolist()) for counts, losses in budgets]

    def mean(self, counts: np.ndarray, budget: int = 0) -> np.ndarray:
        return counts.sum(axis=1) + 100.0 * budget

    def predict(self, counts: np.ndarray, budget: int = 0) -> tuple[np.ndarray, np.ndarray]:
        return self.mean(counts, budget), np.zeros(len(counts))


def level(model: Noted, budget: int = 0) -> Level:
    return Level(make_task(), lambda plans: [float(counts[0]) for counts in plans], model, budget)


PLANS = [np.array(plan) for plan in ([3, 2, 2], [1, 2, 2], [3, 2, 2], [2, 2, 2])]


def test_nothing_is_measured_twice_or_beyond_what_is_allowed() -> None:
    one = level(Noted())
    one.add(PLANS, 2)
    assert [plan.tolist() for plan in one.counts] == [[3, 2, 2], [1, 2, 2]]
    one.add(PLANS, 5)
    assert one.losses == [3, 1, 2]
    assert one.best(2).tolist() == [1, 2]
    assert PLANS[0] in one
    assert np.array([8, 8, 8]) not in one


def test_a_network_that_only_diverges_has_a_best_plan() -> None:
    one = Level(make_task(), lambda plans: [np.nan, np.inf][: len(plans)], Noted())
    one.add(PLANS[:2], 2)
    assert one.best(1).tolist() == [1]
    one.losses = [np.inf, np.inf]
    assert one.best(2).tolist() == [0, 1]


def test_landed_anew_only_what_fits_counts() -> None:
    """5 and 14 of 152 MACs; then 12 are allowed, and the best so far comes back smaller."""
    one = level(Noted())
    one.add([np.array([1, 1, 1]), np.array([2, 2, 2])], 2)
    one.losses = [5.0, 1.0]
    assert one.best(2).tolist() == [1, 0]
    one.land(make_task("macs=0.08").lander, 1)
    assert len(one) == 3
    assert one.best(3).tolist() == [2, 0]
    assert one.values()[1] == -np.inf
    one.land(make_task("macs=0.5").lander, 0)
    assert len(one) == 3
    assert one.best(1).tolist() == [1]


def test_imagined_plans_are_remembered_with_the_forecasts_of_their_budget() -> None:
    one = level(Noted(), budget=1)
    assert one.dreaming()(np.array(PLANS[:2])).tolist() == [107, 105]
    assert one.imagined[0].tolist() == [[3, 2, 2], [1, 2, 2]]


def test_the_model_of_a_network_learns_from_all_its_budgets() -> None:
    here, there = Noted(), Noted()
    levels = [level(here), level(here, 1), level(there)]
    for number, each in enumerate(levels):
        each.add([PLANS[number]], 1)
    fit(levels)
    assert here.taught == [([[3, 2, 2]], [3.0]), ([[1, 2, 2]], [1.0])]
    assert there.taught == [([[3, 2, 2]], [3.0])]
