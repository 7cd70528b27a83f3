"""Settling on a latency, with measurements that are made up."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from costs import DENSE, chain, timed

from rlprune.cost.budget import parse_budget
from rlprune.cost.exact import Cost
from rlprune.cost.projection import BudgetProjector
from rlprune.pipeline.settling import TRIES, settle

SIZES = [60, 80, 70]
Truth = Callable[[float], float]


class Machine:
    """Takes a share of the dense network's time that follows from the model's share, in truth."""

    def __init__(self, cost: Cost, truth: Truth, dense: float = DENSE) -> None:
        self.cost, self.truth, self.dense = cost, truth, dense
        self.asked: list[list[int]] = []

    def __call__(self, counts: np.ndarray) -> dict[str, Any]:
        self.asked.append(counts.tolist())
        pruned = self.dense * self.truth(float(self.cost.ratios(counts)[1]))
        return {"dense_ms": self.dense, "pruned_ms": pruned, "noise": ""}


def times(factor: float) -> Truth:
    return lambda share: factor * share


def projector_of(budget: str, sizes: list[int] = SIZES, round_to: int = 1) -> BudgetProjector:
    cost = chain(sizes, [1] * len(sizes))
    return BudgetProjector(timed(cost), parse_budget(budget).against(DENSE), round_to)


def even(projector: BudgetProjector) -> np.ndarray:
    """The largest plan of even ratios."""
    plan: np.ndarray = projector.project(projector.sizes[None].astype(float))[0]
    return plan


@pytest.mark.parametrize("factor", [0.8, 0.97, 1.03, 1.3, 1.9])
@pytest.mark.parametrize("budget", ["latency=0.4", "latency=8ms"])
def test_the_final_plan_takes_what_it_may(factor: float, budget: str) -> None:
    projector = projector_of(budget)
    machine = Machine(projector.cost, times(factor))
    settled = settle(projector, even(projector), machine)
    assert settled.measured["pruned_ms"] == pytest.approx(0.4 * DENSE, rel=0.05)
    assert settled.measured["pruned_ms"] == machine(settled.counts)["pruned_ms"]
    assert len(settled.told) == (abs(factor - 1) > 0.05)
    assert len(machine.asked) == len(settled.told) + 2
    assert not settled.warnings


@pytest.mark.parametrize(
    "truth",
    [
        # Far below at first, and above once all that the model allows is kept.
        lambda share: share**3,
        lambda share: max(0.15, 2.4 * share - 1.4),
        # Far above at first; half and more of it is overhead.
        lambda share: 0.3 + 0.7 * share,
        lambda share: 0.57 + 0.43 * share,
        lambda share: share**0.25,
    ],
)
def test_it_comes_near_from_below_as_from_above(truth: Truth) -> None:
    projector = projector_of("latency=0.6")
    machine = Machine(projector.cost, truth)
    settled = settle(projector, even(projector), machine)
    assert settled.measured["pruned_ms"] == pytest.approx(0.6 * DENSE, rel=0.05)
    assert 1 < len(machine.asked) <= TRIES
    assert not settled.warnings


def test_a_plan_far_below_grows_though_the_model_is_right() -> None:
    """A plan from before the model was corrected: 15 % of the time where 60 % is allowed."""
    projector = projector_of("latency=0.6")
    small = even(projector_of("latency=0.15"))
    settled = settle(projector, small, Machine(projector.cost, times(1.0)))
    assert settled.measured["pruned_ms"] == pytest.approx(0.6 * DENSE, rel=0.05)
    assert settled.told == ["the plan takes 25 % of the latency it may: the model is corrected"]
    # It has kept its proportions.
    assert settled.counts / small == pytest.approx(np.full(3, 2.0), rel=0.1)


def test_what_stays_far_below_is_told() -> None:
    """Two thirds of the channels take no time, and one more takes twice what is allowed."""
    projector = projector_of("latency=0.6")
    machine = Machine(projector.cost, lambda share: 0.09 if share < 0.62 else 1.2)
    settled = settle(projector, even(projector), machine)
    assert settled.measured["pruned_ms"] == 0.09 * DENSE
    assert len(machine.asked) <= TRIES
    (warning,) = settled.warnings
    assert warning.startswith(f"the plan takes 15 % of the latency it may: of {len(machine.asked)} that were measured")


def test_overhead_shows_in_what_was_measured() -> None:
    """The model knows nothing of it: the line through the measurements does."""
    projector = projector_of("latency=0.6")
    settled = settle(projector, even(projector), Machine(projector.cost, lambda share: 0.57 + 0.43 * share))
    assert (settled.line.offset, settled.line.slope) == pytest.approx((0.57, 0.43))
    settled = settle(projector, even(projector), Machine(projector.cost, times(1.02)))
    assert (settled.line.offset, settled.line.slope) == pytest.approx((0, 1.02))


def test_a_time_is_a_time_though_the_machine_has_become_slower() -> None:
    for budget, expected in (("latency=8ms", 8.0), ("latency=0.4", 12.0)):
        projector = projector_of(budget)
        settled = settle(projector, even(projector), Machine(projector.cost, times(1.0), dense=30.0))
        assert settled.measured["pruned_ms"] == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("budget", ["latency=0.9,params=0.3", "latency=1"])
def test_a_plan_that_something_else_holds_stays(budget: str) -> None:
    """Another bound, or that there is no more to keep."""
    projector = projector_of(budget)
    counts = even(projector)
    machine = Machine(projector.cost, times(0.6))
    settled = settle(projector, counts, machine)
    assert (settled.counts == counts).all()
    assert len(machine.asked) == 1
    assert not settled.told
    assert not settled.warnings


def test_what_cannot_be_met_is_told() -> None:
    """No plan of a machine with a floor is fast enough; the fastest one that was tried is taken."""
    projector = projector_of("latency=0.3", [6, 8, 7])
    cost = projector.cost

    def measure(counts: np.ndarray) -> dict[str, Any]:
        return {"dense_ms": DENSE, "pruned_ms": 10 + cost.ratios(counts)[1], "noise": "it shakes"}

    settled = settle(projector, even(projector), measure)
    assert settled.measured["pruned_ms"] < 10.3
    assert "more than the budget" in settled.warnings[0]
    assert settled.told[-1] == "this machine is too noisy to tell: it shakes"
