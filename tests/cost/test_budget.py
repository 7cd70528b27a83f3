import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from costs import chain
from hypothesis import given, settings
from hypothesis import strategies as st
from residual import EXAMPLE, basic, convnext, inverted, network

from rlprune.cost.budget import Budget, describe, parse_budget, parse_budgets
from rlprune.cost.exact import Cost, build_cost
from rlprune.cost.projection import BudgetProjector
from rlprune.errors import UserError
from rlprune.tracing.build import build_graph


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        (0.3, {"macs": 0.3}),
        (1, {"macs": 1.0}),
        ("0.3", {"macs": 0.3}),
        (" 30 % ", {"macs": 0.3}),
        ("7%", {"macs": 0.07}),
        ("MACs = 0.3, params=0.4,", {"macs": 0.3, "params": 0.4}),
        ({"params": 0.5}, {"params": 0.5}),
        (Budget({"macs": 0.2}), {"macs": 0.2}),
        (None, {}),
        ("latency=0.5", {"latency": 0.5}),
        ("macs=0.3,latency=50%", {"macs": 0.3, "latency": 0.5}),
    ],
)
def test_reading(given: Any, limits: dict[str, float]) -> None:
    assert parse_budget(given).limits == limits


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("mac=0.3", "unknown budget resource 'mac': did you mean 'macs'?"),
        ("flops=0.3", "known: latency, macs, params"),
        ("0", "budget macs=0 is out of range"),
        (0.0, "budget macs=0.0 is out of range"),
        ("-0.3", "out of range"),
        ("1.5", "above 0 and at most 1"),
        (30, "(0.3 keeps at most 30 %)"),
        ("params=nan", "budget params=nan is out of range"),
        ("inf", "out of range"),
        ("", "budget '' is empty"),
        (" , ", "is empty"),
        ({}, "is empty"),
        ("0.3,macs=0.4", "names macs twice"),
        ("macs=", "budget macs= is not a number"),
        ("abc", "budget macs=abc is not a number"),
        ("30%%", "is not a number"),
        ("latncy=0.5", "unknown budget resource 'latncy': did you mean 'latency'?"),
        ("latency=8", "budget latency=8 is out of range"),
        ("latency=8", "a time is written 8ms"),
        ("latency=fast", "budget latency=fast is not a number"),
        ("latency=fastms", "budget latency=fastms is no time: expected a fraction such as 0.5, or 8ms"),
        ("latency=0ms", "budget latency=0ms is out of range: expected a time above 0"),
        ("latency=infs", "is out of range"),
        ("latency=8ms,latency=0.5", "names latency twice"),
        ("macs=8ms", "budget macs=8ms is not a number"),
        (True, "budget macs=True is not a number"),
    ],
)
def test_what_cannot_be_read(given: Any, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        parse_budget(given)


def test_words() -> None:
    both = parse_budget("macs=0.3,params=0.07")
    assert both.describe() == ("keep ≤ 30 % of the MACs (remove ≥ 70 %), keep ≤ 7 % of the parameters (remove ≥ 93 %)")
    assert parse_budget(str(both)) == both
    assert both.fractions().tolist() == [0.3, 0.07]
    assert parse_budget(None).describe() == "no bound"
    assert parse_budget(None).fractions().tolist() == [np.inf, np.inf]


@pytest.mark.parametrize(
    ("text", "milliseconds"), [("latency=8ms", 8.0), ("latency = 8 ms", 8.0), ("latency=0.01s", 10)]
)
def test_times(text: str, milliseconds: float) -> None:
    budget = parse_budget(text)
    assert (budget.limits, budget.milliseconds) == ({}, milliseconds)
    assert (budget.timed, budget.bounded) == (True, True)
    assert parse_budget(str(budget)) == budget
    assert budget.describe() == f"take ≤ {milliseconds:g} ms"
    against = budget.against(20.0)
    assert against.limits == {"latency": milliseconds / 20}
    assert (str(against), against.describe()) == (str(budget), budget.describe())
    with pytest.raises(UserError, match=r"the dense network takes only 7 ms here, ask for less"):
        budget.against(7.0)


def test_words_of_a_latency() -> None:
    budget = parse_budget("macs=0.5,latency=0.4")
    assert budget.describe().endswith("keep ≤ 40 % of the latency (remove ≥ 60 %)")
    assert budget.against(20.0) is budget
    assert budget.fractions(("macs", "params", "latency")).tolist() == [0.5, np.inf, 0.4]
    assert not parse_budget(0.3).timed


def allowed(size: int, round_to: int, least: int) -> list[int]:
    """Multiples of `round_to` and the whole group, but no fewer than `least` unless that is the whole group."""
    return [n for n in range(1, size + 1) if n == size or (n % round_to == 0 and n >= least)]


def feasible(cost: Cost, counts: Any, budget: Budget) -> bool:
    kept = cost(np.array(counts))
    return all(
        kept[i] <= budget.limits[name] * cost.dense[i] + 1e-6
        for i, name in enumerate(("macs", "params"))
        if name in budget.limits
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[Cost, Budget, int, int]:
    sizes = draw(st.lists(st.integers(1, 20), min_size=1, max_size=4))
    positions = draw(st.lists(st.sampled_from([1, 4, 16, 64]), min_size=len(sizes), max_size=len(sizes)))
    names = draw(st.sampled_from([["macs"], ["params"], ["macs", "params"]]))
    budget = Budget({name: draw(st.floats(0.01, 1)) for name in names})
    return chain(sizes, positions), budget, draw(st.sampled_from([1, 4, 8])), draw(st.integers(1, 6))


@given(cases(), st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_landed_plans_are_allowed_and_cannot_grow(case: tuple[Cost, Budget, int, int], seed: int) -> None:
    cost, budget, round_to, least = case
    choices = [allowed(size, round_to, least) for size in cost.sizes.tolist()]
    smallest = [options[0] for options in choices]
    if not feasible(cost, smallest, budget):
        with pytest.raises(UserError, match="below what is feasible"):
            BudgetProjector(cost, budget, round_to, least)
        return
    projector = BudgetProjector(cost, budget, round_to, least)
    assert projector.minimum.tolist() == smallest
    wished = np.exp(np.random.default_rng(seed).normal(0, 1, (3, len(choices)))) * cost.sizes
    for counts in projector.project(wished).tolist():
        assert feasible(cost, counts, budget)
        for group, options in enumerate(choices):
            assert counts[group] in options
            for more in options[options.index(counts[group]) + 1 :]:
                assert not feasible(cost, [*counts[:group], more, *counts[group + 1 :]], budget)


@given(cases())
@settings(max_examples=100, deadline=None)
def test_what_an_infeasible_budget_is_told_is_feasible(case: tuple[Cost, Budget, int, int]) -> None:
    cost, budget, round_to, least = case
    try:
        BudgetProjector(cost, budget, round_to, least)
    except UserError as error:
        found = re.search(r"the smallest possible is ([a-z0-9.,=]+)$", str(error))
        assert found
        possible = parse_budget(found[1])
        BudgetProjector(cost, Budget({**budget.limits, **possible.limits}), round_to, least)
        for name, limit in possible.limits.items():
            assert limit > budget.limits[name]
            with pytest.raises(UserError):
                BudgetProjector(cost, Budget({name: limit - 2e-4}) if limit > 3e-4 else budget, round_to, least)


@given(cases(), st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_largest_is_what_trying_all_finds(case: tuple[Cost, Budget, int, int], seed: int) -> None:
    cost, budget, round_to, least = case
    choices = [allowed(size, round_to, least) for size in cost.sizes.tolist()]
    if not feasible(cost, [options[0] for options in choices], budget):
        return
    projector = BudgetProjector(cost, budget, round_to, least)
    rng = np.random.default_rng(seed)
    plans = np.array([[rng.choice(options) for options in choices] for _ in range(4)])
    for group, options in enumerate(choices):
        expected = []
        for plan in plans.tolist():
            fitting = [n for n in options if feasible(cost, [*plan[:group], n, *plan[group + 1 :]], budget)]
            expected.append(max(fitting, default=options[0]))
        assert projector.largest(plans, group).tolist() == expected


@given(cases(), st.floats(1, 3), st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_a_larger_budget_never_rescales_to_less(case: tuple[Cost, Budget, int, int], more: float, seed: int) -> None:
    cost, budget, round_to, least = case
    larger = Budget({name: min(1.0, more * limit) for name, limit in budget.limits.items()})
    try:
        small, large = (BudgetProjector(cost, bound, round_to, least) for bound in (budget, larger))
    except UserError:
        return
    wished = np.exp(np.random.default_rng(seed).normal(0, 1, (3, len(cost.sizes)))) * cost.sizes
    low, high = small.rescale(wished), large.rescale(wished)
    assert (low <= high).all()
    assert small.fits(small.quantise(wished * low[:, None])).all()
    plan, grown = (small.quantise(wished * factor[:, None]) for factor in (low, 1.001 * low))
    assert (~small.fits(grown) | (grown == plan).all(axis=1)).all()


def test_rescaling_the_rest_of_a_walk() -> None:
    """By trying all factors: the first group is decided, the second takes what is left."""
    cost = chain([10, 10], [4, 4])
    projector = BudgetProjector(cost, parse_budget(0.5))
    decided = np.array([[6, 1]])
    factor = projector.rescale(np.array([[10.0, 10.0]]), decided, first=1)
    best = max(n for n in range(1, 11) if feasible(cost, [6, n], projector.budget))
    assert projector.quantise(np.array([[10.0, 10.0]]) * factor[:, None])[0, 1] == best
    near = projector.rescale(np.array([[10.0, 10.0]]), decided, first=1, around=factor * 1.3)
    assert near == pytest.approx(factor, rel=0.005)


def test_wide_groups_are_rescaled_to_the_channel() -> None:
    projector = BudgetProjector(chain([4000, 3000], [1, 1]), parse_budget(0.3))
    wished = np.array([[4000.0, 3000.0]])
    factor = projector.rescale(wished)
    plan, grown = (projector.quantise(wished * more) for more in (factor, factor * (1 + 1e-6)))
    assert projector.fits(plan).all()
    assert (grown == plan).all() or not projector.fits(grown).any()
    assert projector.cost.ratios(plan)[0, 0] == pytest.approx(0.3, rel=1e-3)


def test_the_remainder_is_spread() -> None:
    """Three groups of ten that cost the same: 17 of 30 are 5 each, and one more for two of them."""
    per_channel = np.vstack([np.eye(3), np.zeros(3)])
    weights, sizes = np.ones((3, 2)), np.full(3, 10)
    cost = Cost(
        np.array([0.0, 0, 0, 1]),
        per_channel,
        np.arange(3),
        np.full(3, 3),
        weights,
        np.full(2, 30.0),
        sizes,
        np.ones(3, dtype=int),
    )
    assert sorted(BudgetProjector(cost, parse_budget(17.5 / 30)).project(np.full((1, 3), 10.0))[0].tolist()) == [
        5,
        6,
        6,
    ]


@pytest.mark.parametrize("round_to", [1, 4, 8])
def test_without_a_bound_everything_stays(round_to: int) -> None:
    """Though the sizes are no multiples and the factor goes through a logarithm and back."""
    projector = BudgetProjector(chain([13, 7, 10, 3], [1] * 4), parse_budget(None), round_to)
    wished = np.exp(np.random.default_rng(0).normal(0, 1, (200, 4)))
    assert (projector.quantise(wished * projector.rescale(wished)[:, None]) == projector.sizes).all()
    assert (projector.project(wished) == projector.sizes).all()


@pytest.mark.parametrize("round_to", [1, 4])
def test_a_block_that_is_out_stays_out(round_to: int) -> None:
    net = network(basic(), inverted(), convnext(), basic(inner=9))
    graph = build_graph(net, EXAMPLE)
    projector = BudgetProjector(build_cost(graph), parse_budget("macs=0.3,params=0.4"), round_to)
    rng = np.random.default_rng(0)
    wished = graph.sizes * np.exp(rng.normal(0, 1, (40, len(graph.sizes))))
    out = rng.random((40, len(graph.blocks))) < 0.5
    for plan, gone in zip(wished, out, strict=True):
        for block in np.flatnonzero(gone):
            plan[list(graph.blocks[block].groups)] = 0
    counts = projector.project(wished)
    assert ((counts == 0) == (wished == 0)).all()
    assert projector.fits(counts).all()
    assert (np.where(counts == 0, projector.minimum, counts) >= projector.minimum).all()
    for plan in counts:
        for group in np.flatnonzero(plan):
            larger = projector.allowed(group)
            for count in larger[larger > plan[group]][:1]:
                grown = plan.copy()
                grown[group] = count
                assert not projector.fits(grown), "the largest plan is inside"
    decided = projector.rescale(wished, counts, first=2)
    assert np.isfinite(decided).all()


def test_with_all_blocks_out_nothing_may_be_left_to_scale() -> None:
    graph = build_graph(network(basic(), basic()), EXAMPLE)
    projector = BudgetProjector(build_cost(graph), parse_budget("macs=0.5"))
    wished = np.array([[8.0, 0, 0]])
    assert projector.rescale(wished, np.array([[8, 0, 0]]), first=1).shape == (1,)
    assert projector.project(wished).tolist() == [[8, 0, 0]]


def test_quantise() -> None:
    projector = BudgetProjector(chain([20, 6, 12], [1] * 3), parse_budget(None), round_to=8, min_channels=9)
    assert projector.minimum.tolist() == [16, 6, 12]
    projector = BudgetProjector(chain([20, 6, 12], [1] * 3), parse_budget(None), round_to=8)
    assert projector.minimum.tolist() == [8, 6, 8]
    wished = np.array([[19.9, 5.0, 11.9], [20.0, 7.0, 0.1], [16.0, 0.0, 100.0]])
    assert projector.quantise(wished).tolist() == [[16, 6, 8], [20, 6, 8], [16, 6, 12]]


def test_bundles_count_by_their_outputs() -> None:
    """Bundles of 4, 6 and 32 outputs: multiples of 16 outputs are every fourth, every eighth and any bundle."""
    cost = replace(chain([12, 16, 3], [1, 1, 1]), widths=np.array([4, 6, 32]))
    projector = BudgetProjector(cost, parse_budget(None), round_to=16, min_channels=20)
    assert projector.steps.tolist() == [4, 8, 1]
    # 20 outputs are five bundles of 4, four of 6, and one of 32.
    assert projector.minimum.tolist() == [8, 8, 1]
    wished = np.array([[11.0, 15.9, 2.5], [3.0, 3.0, 0.5]])
    assert projector.quantise(wished).tolist() == [[8, 8, 2], [8, 8, 1]]
    counts = projector.project(wished)
    assert ((counts * [4, 6, 32] % 16 == 0) | (counts == projector.sizes)).all()


def test_a_bound_may_be_met_exactly() -> None:
    """0.07 x 100 is 7.000000000000001 in floating point, 0.29 x 100 is 28.999999999999996."""
    for percent in range(1, 101):
        whole, per_channel = np.array([0.0, 1.0]), np.array([[1.0], [0.0]])
        one = Cost(
            whole,
            per_channel,
            np.array([0]),
            np.array([1]),
            np.array([[1.0, 1.0]]),
            np.full(2, 100.0),
            np.array([100]),
            np.array([1]),
        )
        assert BudgetProjector(one, parse_budget(f"{percent}%")).project(np.ones((1, 1))).item() == percent


def test_many_plans_land_as_each_alone() -> None:
    projector = BudgetProjector(chain([16, 12, 20], [16, 4, 1]), parse_budget("macs=0.4,params=0.5"), round_to=4)
    wished = np.exp(np.random.default_rng(0).normal(0, 1, (20, 3))) * 10
    assert projector.project(wished).tolist() == [projector.project(one[None])[0].tolist() for one in wished]


def test_equal_wishes_keep_at_least_the_largest_equal_plan() -> None:
    cost = chain([12, 12], [1, 1])
    projector = BudgetProjector(cost, parse_budget(0.5))
    equal = max(n for n in range(1, 13) if feasible(cost, [n, n], projector.budget))
    assert projector.project(np.array([[12.0, 12.0]])).min() == equal


@pytest.mark.parametrize("options", [(0, 1), (1, 0), (-4, 1)])
def test_impossible_options(options: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="must both be at least 1"):
        BudgetProjector(chain([4], [1]), parse_budget(0.5), *options)


def test_what_an_infeasible_budget_is_told() -> None:
    with pytest.raises(
        UserError,
        match=re.escape(
            "budget macs=0.1,params=0.2 is below what is feasible: with round_to=8 and min_channels=1 "
            "the smallest possible is macs=0.5,params=0.5"
        ),
    ):
        BudgetProjector(chain([16], [1]), parse_budget("0.1,params=0.2"), round_to=8)


def test_a_range_is_seven_budgets_evenly_in_their_logarithm() -> None:
    budgets = parse_budgets("0.2:0.8")
    limits = [budget.limits["macs"] for budget in budgets]
    assert len(limits) == 7
    assert (limits[0], limits[3], limits[-1]) == (0.2, 0.4, 0.8)
    np.testing.assert_allclose(np.diff(np.log(limits)), np.log(4) / 6, rtol=1e-2)
    assert describe(budgets) == "keep 20 to 80 % of the MACs (remove 20 to 80 %)"
    assert [budget.limits for budget in parse_budgets(0.3)] == [{"macs": 0.3}]


def test_a_range_of_one_of_two_resources() -> None:
    budgets = parse_budgets("macs=0.5, params=10%:40%")
    assert budgets[0].limits == {"macs": 0.5, "params": 0.1}
    assert budgets[-1].limits == {"macs": 0.5, "params": 0.4}
    assert describe(budgets) == (
        "keep ≤ 50 % of the MACs (remove ≥ 50 %), keep 10 to 40 % of the parameters (remove 60 to 90 %)"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("0.8:0.2", "from the smaller to the larger"),
        ("0.3:0.3", "from the smaller to the larger"),
        ("macs=0.2:0.8,params=0.2:0.8", "two ranges"),
        ("0.2:x", "not a number"),
        ("0:0.5", "out of range"),
        ("0.2:0.4:0.8", "is a range"),
        ("mac=0.2:0.8", "did you mean 'macs'"),
        ("latency=0.2:0.8", "a range is one of MACs or parameters"),
    ],
)
def test_ranges_that_are_none(given: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_budgets(given)


def test_only_a_search_takes_a_range() -> None:
    with pytest.raises(UserError, match=r"macs=0\.2:0\.8 is a range, for which only search learns"):
        parse_budget("0.2:0.8")
