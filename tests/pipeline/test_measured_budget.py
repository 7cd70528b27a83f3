"""Settling on a latency, with measurements that are made up."""

from typing import Any

import numpy as np
import pytest
from costs import DENSE, chain, timed

from rlprune.cost.budget import Budget, parse_budget
from rlprune.cost.exact import Cost
from rlprune.cost.projection import BudgetProjector
from rlprune.errors import UserError
from rlprune.latency.backends import Backend
from rlprune.pipeline.measured_budget import MeasuredBudget, settle


class Machine:
    """Takes so many times what the model says, in truth."""

    def __init__(self, cost: Cost, factor: float, dense: float = DENSE) -> None:
        self.cost, self.factor, self.dense = cost, factor, dense
        self.asked: list[list[int]] = []

    def __call__(self, counts: np.ndarray) -> dict[str, Any]:
        self.asked.append(counts.tolist())
        pruned = self.dense * self.factor * self.cost.ratios(counts)[1]
        return {"dense_ms": self.dense, "pruned_ms": pruned, "noise": ""}


@pytest.mark.parametrize("factor", [0.8, 0.97, 1.03, 1.3, 1.9])
@pytest.mark.parametrize("budget", ["latency=0.4", "latency=8ms"])
def test_the_final_plan_takes_what_it_may(factor: float, budget: str) -> None:
    cost = chain([60, 80, 70], [1, 1, 1])
    projector = BudgetProjector(timed(cost), parse_budget(budget).against(DENSE))
    counts, machine = projector.project(cost.sizes[None].astype(float))[0], Machine(cost, factor)
    plan, measured, told = settle(projector, counts, machine)
    assert measured["pruned_ms"] == pytest.approx(0.4 * DENSE, rel=0.05)
    assert measured["pruned_ms"] == machine(plan)["pruned_ms"]
    assert len(told) == (abs(factor - 1) > 0.05)
    assert len(machine.asked) == len(told) + 2


def test_a_time_is_a_time_though_the_machine_has_become_slower() -> None:
    cost = chain([60, 80, 70], [1, 1, 1])
    for budget, expected in (("latency=8ms", 8.0), ("latency=0.4", 12.0)):
        projector = BudgetProjector(timed(cost), parse_budget(budget).against(DENSE))
        counts = projector.project(cost.sizes[None].astype(float))[0]
        _, measured, _ = settle(projector, counts, Machine(cost, 1.0, dense=30.0))
        assert measured["pruned_ms"] == pytest.approx(expected, rel=0.05)


def test_a_plan_that_another_bound_keeps_fast_stays() -> None:
    cost = chain([60, 80, 70], [1, 1, 1])
    projector = BudgetProjector(timed(cost), parse_budget("latency=0.9,params=0.3"))
    counts = projector.project(cost.sizes[None].astype(float))[0]
    plan, _, told = settle(projector, counts, Machine(cost, 0.9))
    assert (plan == counts).all()
    assert not told


def test_what_cannot_be_met_is_told() -> None:
    """No plan of a machine with a floor is fast enough; the fastest one that was tried is taken."""
    cost = chain([6, 8, 7], [1, 1, 1])
    projector = BudgetProjector(timed(cost), parse_budget("latency=0.3"))
    counts = projector.project(cost.sizes[None].astype(float))[0]

    def measure(counts: np.ndarray) -> dict[str, Any]:
        return {"dense_ms": DENSE, "pruned_ms": 10 + cost.ratios(counts)[1], "noise": "it shakes"}

    _, measured, told = settle(projector, counts, measure)
    assert measured["pruned_ms"] < 10.3
    assert "more than the budget" in told[-2]
    assert told[-1] == "this machine is too noisy to tell: it shakes"


def test_without_a_latency_nothing_is_measured() -> None:
    cost = chain([6, 8], [1, 1])
    measured_budget = MeasuredBudget([BudgetProjector(cost, parse_budget(0.5))], Backend(), {})
    counts = np.array([3, 4])
    assert measured_budget.settle(counts, None) is counts  # type: ignore[arg-type]
    assert measured_budget.result() == {}


def test_the_least_is_said_in_milliseconds() -> None:
    cost = timed(chain([6, 8], [1, 1]))
    with pytest.raises(UserError, match=r"the smallest possible is latency=0\.0732 \(1\.46 ms\)$"):
        BudgetProjector(cost, Budget({"latency": 0.01}))


def test_what_is_not_measured_is_refused() -> None:
    cost = chain([6, 8], [1, 1])
    for budget, round_to in ((parse_budget("latency=0.5"), 1), (parse_budget("latency=8ms"), 1)):
        with pytest.raises(UserError, match="asks for a measurement"):
            BudgetProjector(cost, budget, round_to)
    with pytest.raises(UserError, match="round_to=auto asks for a measurement"):
        BudgetProjector(cost, parse_budget(0.5), "auto")
