"""What was measured is kept in order, and a model learns from the budgets of its own network alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from toys import make_spec

from rlprune.agents.search.archive import PlanArchive, fit
from rlprune.agents.search.surrogate import Measured


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


def archive(model: Noted, budget: int = 0) -> PlanArchive:
    return PlanArchive(make_spec(), lambda plans: [float(counts[0]) for counts in plans], model, budget)


PLANS = [np.array(plan) for plan in ([3, 2, 2], [1, 2, 2], [3, 2, 2], [2, 2, 2])]


def test_nothing_is_measured_twice_or_beyond_what_is_allowed() -> None:
    one = archive(Noted())
    one.add(PLANS, 2)
    assert [plan.tolist() for plan in one.counts] == [[3, 2, 2], [1, 2, 2]]
    one.add(PLANS, 5)
    assert one.losses == [3, 1, 2]
    assert one.best(2).tolist() == [1, 2]
    assert PLANS[0] in one
    assert np.array([8, 8, 8]) not in one


def test_a_network_that_only_diverges_has_a_best_plan() -> None:
    one = PlanArchive(make_spec(), lambda plans: [np.nan, np.inf][: len(plans)], Noted())
    one.add(PLANS[:2], 2)
    assert one.best(1).tolist() == [1]
    one.losses = [np.inf, np.inf]
    assert one.best(2).tolist() == [0, 1]


def test_landed_anew_only_what_fits_counts() -> None:
    """5 and 14 of 152 MACs; then 12 are allowed, and the best so far comes back smaller."""
    one = archive(Noted())
    one.add([np.array([1, 1, 1]), np.array([2, 2, 2])], 2)
    one.losses = [5.0, 1.0]
    assert one.best(2).tolist() == [1, 0]
    one.project(make_spec("macs=0.08").projector, 1)
    assert len(one) == 3
    assert one.best(3).tolist() == [2, 0]
    assert one.values()[1] == -np.inf
    one.project(make_spec("macs=0.5").projector, 0)
    assert len(one) == 3
    assert one.best(1).tolist() == [1]


def test_imagined_plans_are_remembered_with_the_forecasts_of_their_budget() -> None:
    one = archive(Noted(), budget=1)
    assert one.imagined_score()(np.array(PLANS[:2])).tolist() == [107, 105]
    assert one.imagined[0].tolist() == [[3, 2, 2], [1, 2, 2]]


def test_the_model_of_a_network_learns_from_all_its_budgets() -> None:
    here, there = Noted(), Noted()
    archives = [archive(here), archive(here, 1), archive(there)]
    for number, each in enumerate(archives):
        each.add([PLANS[number]], 1)
    fit(archives)
    assert here.taught == [([[3, 2, 2]], [3.0]), ([[1, 2, 2]], [1.0])]
    assert there.taught == [([[3, 2, 2]], [3.0])]
