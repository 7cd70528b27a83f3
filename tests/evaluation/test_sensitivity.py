from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from toys import macs, make_spec

from rlprune.cost.budget import Budget, parse_budget
from rlprune.cost.exact import Cost
from rlprune.cost.projection import BudgetProjector
from rlprune.evaluation.sensitivity import (
    KEEP_RATIOS,
    Sensitivity,
    convex,
    measure,
    measure_around,
    number_of_evaluations,
)
from rlprune.methods.allocators.sensitivity import sensitivity_rule

NOTHING = (np.zeros(0, dtype=int), np.zeros(0, dtype=int), np.zeros((0, 2)))
"""A block with no tensors of its own."""


def separate(sizes: list[int], macs: list[float], params: list[float]) -> Cost:
    """Groups that do not meet: costs are sums over groups of the kept channels times these numbers."""
    groups = len(sizes)
    weights = np.array([macs, params], dtype=float).T
    return Cost(
        np.array([*[0] * groups, 1.0]),
        np.vstack([np.eye(groups), np.zeros(groups)]),
        np.arange(groups),
        np.full(groups, groups),
        weights,
        np.array(sizes) @ weights,
        np.array(sizes),
        np.ones(groups, dtype=int),
    )


def test_measuring() -> None:
    """Every group is cut alone, to counts that are allowed, and compared with the dense network; no plan twice.

    Cuts of 40 channels to multiples of 8 go to 16, 8 and 8; of 16 channels they all go to 8, and 8 cannot be cut.
    """
    projector = BudgetProjector(separate([40, 16, 8], [1, 1, 1], [1, 1, 1]), parse_budget(None), round_to=8)
    asked: list[list[int]] = []

    def loss(counts: np.ndarray) -> float:
        asked.append(counts.tolist())
        return float(0.5 + (40 - counts[0]) / 10 + (16 - counts[1]) + (8 - counts[2]))

    found = measure(lambda plans: [loss(plan) for plan in plans], projector)
    assert asked == [[40, 16, 8], [16, 16, 8], [8, 16, 8], [40, 8, 8]]
    assert len(asked) < number_of_evaluations(3)
    curves = [[part.tolist() for part in found.curve(group)] for group in range(3)]
    assert [ratios for ratios, _ in curves] == [[0.2, 0.4, 1], [0.5, 1], [1]]
    assert [pytest.approx(rises) for _, rises in curves] == [[3.2, 2.4, 0], [8, 0], [0]]
    # The forecast of a plan that was measured is what was measured.
    assert found.predict(np.array([[0.2, 1, 1], [1, 0.5, 1], [0.4, 1, 1]])) == pytest.approx([3.2, 8, 2.4])
    assert found.read(1, np.array([0.75, 0.5, 0.25])) == pytest.approx([4, 8, 8])


def test_measuring_blocks() -> None:
    """Each block is taken out alone, once; its rise stands with its first group and not with the others."""
    cost = replace(separate([4, 4, 2], [1, 1, 1], [1, 1, 1]), blocks=((0, 1),), inside=(NOTHING,))
    projector = BudgetProjector(cost, parse_budget(None))
    asked: list[list[int]] = []

    def losses(plans: list[np.ndarray]) -> list[float]:
        asked.extend(plan.tolist() for plan in plans)
        return [float(10 - plan.sum()) for plan in plans]

    found = measure(losses, projector, [(0, 1)])
    assert asked[-1] == [0, 0, 2]
    assert len(asked) <= number_of_evaluations(3, 1)
    assert found.blocks == (((0, 1), 8.0),)
    keep = np.array([[0, 0, 1], [0.5, 1, 1], [0, 0, 0.5]])
    assert found.predict(keep).tolist() == [8, 2, 9]
    assert [part.tolist() for part in found.parts(keep)] == [[8, 2, 8], [0, 0, 0], [0, 0, 1]]
    assert measure(losses, projector).blocks == ()


def test_measuring_wide_groups() -> None:
    """Where every cut is a whole number, the ratios are those that were asked for."""
    projector = BudgetProjector(separate([40, 20], [1, 1], [1, 1]), parse_budget(None))
    asked: list[list[int]] = []

    def losses(plans: list[np.ndarray]) -> list[float]:
        asked.extend(plan.tolist() for plan in plans)
        return [float(60 - plan.sum()) for plan in plans]

    found = measure(losses, projector)
    assert asked == [[40, 20], [20, 20], [10, 20], [4, 20], [40, 10], [40, 5], [40, 2]]
    assert len(asked) == number_of_evaluations(2)
    assert found.ratios.tolist() == 2 * [[1, *KEEP_RATIOS]]
    assert found.rises.tolist() == [[0, 20, 30, 36], [0, 10, 15, 18]]


def test_every_curve_has_its_own_ratios() -> None:
    """Both are convex as they are; the second ends at 0.4, below which it is flat."""
    curves = Sensitivity(
        np.array([[1, 0.5, 0.25, 0.25], [1, 0.6, 0.6, 0.4]]), np.array([[0.0, 1, 3, 3], [0, 0.4, 0.4, 1]])
    )
    assert convex(curves) == pytest.approx(curves.rises)
    assert curves.predict(np.array([[0.375, 1], [1, 0.8], [0.25, 0.5], [1, 0.1]])) == pytest.approx([2, 0.2, 3.7, 1])
    assert curves.lowest.tolist() == [0.25, 0.4]
    tight = BudgetProjector(separate([64, 40], [1, 1], [1, 1]), parse_budget(32 / 104))
    assert sensitivity_rule(curves, tight) == pytest.approx([16, 16], abs=1e-9)


@pytest.mark.parametrize(
    ("rises", "expected"),
    [
        ([0, 1, 2, 4], [0, 1, 2, 4]),  # slopes 2, 4, 16: convex as it is
        ([0, 1, 0.5, 4], [0, 2 / 3, 1, 4]),  # rises first, then the middle point is above the line
        ([0, -1, -1, 2], [0, 0, 0, 2]),  # noise is no gain
        ([0, 1, 1, 1], [0, 0.5 / 0.875, 0.75 / 0.875, 1]),  # one line
        ([0, 0, 0, 0], [0, 0, 0, 0]),
    ],
)
def test_convex_curves(rises: list[float], expected: list[float]) -> None:
    found = convex(Sensitivity(np.array([1, 0.5, 0.25, 0.125]), np.array([rises], dtype=float)))
    assert found[0] == pytest.approx(expected)


def test_prediction_adds_up() -> None:
    curves = Sensitivity(np.array([1, 0.5, 0.25]), np.array([[0.0, 1, 3], [0, 0.2, 0.4]]))
    keep = np.array([[1, 1], [0.75, 1], [0.5, 0.5], [0.375, 0.3], [0.25, 0.1]])
    assert curves.predict(keep) == pytest.approx([0, 0.5, 1.2, 2 + 0.36, 3.4])
    assert curves.predict(keep[1]) == pytest.approx(0.5)


RATIOS = np.array([1, 0.5, 0.25, 0.125])


@st.composite
def workloads(draw: st.DrawFn) -> tuple[Sensitivity, Cost]:
    groups = draw(st.integers(1, 4))
    # Convex: the slopes grow.
    slopes = [np.cumsum(draw(st.lists(st.floats(0.01, 2), min_size=3, max_size=3))) for _ in range(groups)]
    rises = np.array([[0, *np.cumsum(slope * -np.diff(RATIOS))] for slope in slopes])
    macs = draw(st.lists(st.floats(0.1, 10), min_size=groups, max_size=groups))
    return Sensitivity(RATIOS, rises), separate([64] * groups, macs, [1] * groups)


def optimum(sensitivity: Sensitivity, cost: Cost, most: float) -> float:
    """The lowest predicted rise within a fraction of the MACs, by linear programming over the pieces of the curves."""
    lengths = np.tile(-np.diff(RATIOS), len(cost.sizes))
    slopes = np.diff(sensitivity.rises, axis=1).ravel() / lengths
    saved = np.repeat(cost.weights[:, 0] * cost.sizes, 3) / cost.dense[0]
    solved = linprog(
        slopes, A_ub=[-saved], b_ub=[most - 1], bounds=list(zip(np.zeros_like(lengths), lengths, strict=True))
    )
    assert solved.success
    return float(solved.fun)


@given(workloads(), st.floats(0.2, 1))
@settings(max_examples=60, deadline=None)
def test_the_rule_is_optimal_where_costs_add_up(workload: tuple[Sensitivity, Cost], budget: float) -> None:
    sensitivity, cost = workload
    projector = BudgetProjector(cost, Budget({"macs": budget}), min_channels=8)
    keep = sensitivity_rule(sensitivity, projector) / cost.sizes
    used = cost.ratios(keep * cost.sizes)[0]
    step = (cost.weights[:, 0] * cost.sizes).max() / cost.dense[0] / 64
    assert budget - step - 1e-9 <= used <= budget
    assert sensitivity.predict(keep) == pytest.approx(optimum(sensitivity, cost, used), abs=1e-9)


@given(workloads(), st.floats(0.1, 5))
@settings(max_examples=60, deadline=None)
def test_with_a_price_channels_go_while_they_cost_more_than_they_hurt(
    workload: tuple[Sensitivity, Cost], price: float
) -> None:
    """A piece of a curve goes if its slope is below what its MACs are worth."""
    sensitivity, cost = workload
    projector = BudgetProjector(cost, parse_budget(None), min_channels=8)
    keep = sensitivity_rule(sensitivity, projector, weights=np.array([price, 0.0])) / cost.sizes
    worth = price * cost.weights[:, 0] * cost.sizes / cost.dense[0]
    slopes = np.diff(sensitivity.rises, axis=1) / -np.diff(RATIOS)
    # A slope that is its price's equal in all but rounding may go either way.
    clear = (np.abs(slopes - worth[:, None]) > 1e-9 * worth[:, None]).all(axis=1)
    expected = 1 - (slopes < worth[:, None]) @ -np.diff(RATIOS)
    assert keep[clear] == pytest.approx(expected[clear])


@st.composite
def bent(draw: st.DrawFn) -> tuple[np.ndarray, Cost]:
    """Groups of 64 whose curves are a share of the logarithm, and what a channel of theirs costs."""
    groups = draw(st.integers(1, 4))
    some = st.lists(st.floats(0.1, 10), min_size=groups, max_size=groups)
    return np.array(draw(some)), separate([64] * groups, draw(some), [1] * groups)


def logarithms(shares: np.ndarray) -> Sensitivity:
    return Sensitivity(RATIOS, -shares[:, None] * np.log(RATIOS))


def smooth_optimum(shares: np.ndarray, cost: Cost, most: float) -> np.ndarray:
    """The ratios of the lowest sum within a fraction of the MACs: where slope and price have one relation for all."""
    prices = cost.weights[:, 0] * cost.sizes / cost.dense[0]
    low, high = 1e-9, 1e9
    for _ in range(200):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if np.clip(shares / prices / middle, 1 / 8, 1) @ prices > most else (low, middle)
    return np.clip(shares / prices / high, 1 / 8, 1)  # type: ignore[no-any-return]


@given(bent(), st.floats(0.2, 1))
@settings(max_examples=60, deadline=None)
def test_on_smooth_curves_the_rule_is_optimal_where_costs_add_up(
    workload: tuple[np.ndarray, Cost], budget: float
) -> None:
    """Up to the steps of 1/64, by which a sum differs as the logarithm bends in one of them."""
    shares, cost = workload
    projector = BudgetProjector(cost, Budget({"macs": budget}), min_channels=8)
    keep = sensitivity_rule(logarithms(shares), projector, curves="smooth") / cost.sizes
    used = cost.ratios(keep * cost.sizes)[0]
    step = (cost.weights[:, 0] * cost.sizes).max() / cost.dense[0] / 64
    assert budget - step - 1e-9 <= used <= budget
    best = smooth_optimum(shares, cost, used)
    assert -shares @ np.log(keep) == pytest.approx(-shares @ np.log(best), abs=shares.sum() / 128 + 1e-6)


def test_on_smooth_curves_the_rule_does_not_end_in_the_points_that_were_measured() -> None:
    """Groups that hurt more and more keep more and more; on lines between the points all of them keep one of these"""
    shares = np.geomspace(0.2, 1, 10)
    cost = separate([64] * 10, [1] * 10, [1] * 10)
    projector = BudgetProjector(cost, parse_budget(0.4), min_channels=8)
    keep = sensitivity_rule(logarithms(shares), projector, curves="smooth") / cost.sizes
    assert keep == pytest.approx(smooth_optimum(shares, cost, 0.4), abs=2 / 64)
    assert np.isin(keep, RATIOS).sum() <= 2
    lines = sensitivity_rule(logarithms(shares), projector) / cost.sizes
    assert np.isin(lines, RATIOS).sum() == 10


@given(bent(), st.floats(0.1, 5))
@settings(max_examples=60, deadline=None)
def test_on_smooth_curves_channels_go_while_they_cost_more_than_they_hurt(
    workload: tuple[np.ndarray, Cost], price: float
) -> None:
    """As far as the slope of a curve, its share over the ratio, is below what the MACs are worth."""
    shares, cost = workload
    projector = BudgetProjector(cost, parse_budget(None), min_channels=8)
    keep = sensitivity_rule(logarithms(shares), projector, np.array([price, 0.0]), curves="smooth") / cost.sizes
    worth = price * cost.weights[:, 0] * cost.sizes / cost.dense[0]
    assert keep == pytest.approx(np.clip(shares / worth, 1 / 8, 1), abs=1 / 64 + 1e-3)


def test_measuring_around_a_plan() -> None:
    """The other groups stand as in the plan; a loss that multiplies shows that. Above 32 the dense curve goes on."""
    projector = BudgetProjector(separate([64, 8], [1, 1], [1, 1]), parse_budget(None))
    asked: list[list[int]] = []

    def losses(plans: list[np.ndarray]) -> list[float]:
        asked.extend(plan.tolist() for plan in plans)
        return [float(100 / plan[0] / plan[1]) for plan in plans]

    before = Sensitivity(np.array([[1, 0.75, 0.25], [1, 0.75, 0.25]]), np.array([[0, 0.5, 4], [0, 1, 8.0]]))
    found = measure_around(losses, projector, np.array([16, 2]), before, 2.0)
    first, second = found.curve(0), found.curve(1)
    counts = [plan[0] for plan in asked if plan[1] == 2]
    assert sorted(counts) == [8, 11, 16, 22, 32]
    assert sorted(plan[1] for plan in asked if plan[0] == 16 and plan[1] != 2) == [1, 4]
    # From 32 on: 4 at a quarter of 64, 0.5 at three of them, in between at a half 2.25.
    assert first[0] * 64 == pytest.approx([8, 11, 16, 22, 32, 48, 64])
    assert first[1] == pytest.approx([50 / n - 50 / 32 + 2.25 for n in (8, 11, 16, 22, 32)] + [0.5, 0])
    assert second[0] * 8 == pytest.approx([1, 2, 4, 6, 8])
    assert second[1] == pytest.approx([100 / 16 / n - 100 / 64 + 4.5 for n in (1, 2, 4)] + [1, 0])
    assert found.lowest.tolist() == [1 / 8, 1 / 8]


def curves(*rises: Any) -> Sensitivity:
    return Sensitivity(RATIOS, np.array(rises, dtype=float))


def test_a_budget_goes_before_the_price() -> None:
    cost = separate([64, 64], [1, 1], [1, 1])
    projector = BudgetProjector(cost, parse_budget(0.5))
    dear = curves([0, 5, 10, 20], [0, 6, 12, 24])
    keep = sensitivity_rule(dear, projector, weights=np.array([0.1, 0.1]))
    assert cost.ratios(keep)[0] == pytest.approx(0.5, abs=1 / 128 + 1e-9)
    assert cost.ratios(keep)[0] <= 0.5


def test_only_what_relieves_an_exceeded_budget_counts() -> None:
    """The first group has the MACs, the second the parameters; the second one's cuts are free but do not help."""
    cost = separate([64, 64], [1, 0], [0, 1])
    projector = BudgetProjector(cost, parse_budget("macs=0.5"))
    assert sensitivity_rule(curves([0, 1, 2, 4], [0, 0, 0, 0]), projector).tolist() == [32, 64]
    both = BudgetProjector(cost, parse_budget("macs=0.5,params=0.25"))
    assert sensitivity_rule(curves([0, 1, 2, 4], [0, 9, 18, 36]), both).tolist() == [32, 16]


def test_a_bound_can_be_met_at_the_price_of_another_resource() -> None:
    """For the same damage a cut of the first group saves more MACs, one of the second more parameters."""
    cost = separate([64, 64], [9, 1], [1, 9])
    projector, alike = BudgetProjector(cost, parse_budget("params=0.5")), curves([0, 5, 7.5, 9], [0, 5, 7.5, 9])
    first, second = sensitivity_rule(alike, projector)
    assert first == 64
    assert second == pytest.approx((320 - 64) / 9, abs=1)
    first, second = sensitivity_rule(alike, projector, price="macs")
    assert first == 64 * RATIOS[-1]
    assert second == pytest.approx((320 - first) / 9, abs=1)


def test_the_smallest_plan_is_the_end() -> None:
    projector = BudgetProjector(separate([64, 10], [1, 1], [1, 1]), parse_budget(None), round_to=8)
    free = curves([0, 0, 0, 0], [0, 0, 0, 0])
    assert sensitivity_rule(free, projector, weights=np.ones(2)).tolist() == [8, 8]


def test_the_rule_stays_where_the_curves_are_known() -> None:
    """The last group costs nothing down to 0.2; below that nobody has measured, unless the budget leaves no choice."""
    projector = make_spec("macs=0.3").projector
    rises = np.array([[0, 0.5, 1, 2], [0, 0.5, 1, 2], [0, 0, 0, 0]])
    curves = Sensitivity(np.array([1.0, 0.5, 0.25, 0.2]), rises)
    assert sensitivity_rule(curves, projector).round(2).tolist()[2] == 1.6
    tight = sensitivity_rule(curves, make_spec("macs=0.04").projector)
    assert tight.min() < 1.6
    assert macs(*tight) <= 0.04 * 152
