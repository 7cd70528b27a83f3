"""The referee counts right, and nobody gets past it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rivalry import cheap, make_bank, make_entry
from toys import macs

from rlprune.agents.contest import around, base_plan
from rlprune.allocators.sensitivity import number_of_evaluations
from rlprune.allocators.uniform import uniform

SMALL = [np.array(plan) for plan in ([1, 1, 1], [2, 1, 1], [2, 2, 1], [3, 2, 2])]


def test_a_plan_counts_once_however_often_it_is_asked_for() -> None:
    entry = make_entry("any", cheap, 2)
    entry.begin()
    for plan in (SMALL[0], SMALL[1], SMALL[0], SMALL[1]):
        assert entry(plan).loss == cheap(plan)
    assert (len(entry.seen), entry.left) == (2, 0)


def test_what_is_known_stays_free_when_nothing_is_left_and_more_is_against_the_rules() -> None:
    entry = make_entry("greedy", cheap, 1)
    entry.begin()
    entry(SMALL[0])
    entry(SMALL[0])
    with pytest.raises(RuntimeError, match="greedy asks for more than 1 evaluations"):
        entry(SMALL[1])


def test_plans_above_the_budget_may_be_probed_but_not_offered() -> None:
    entry = make_entry("cheat", cheap, 5)
    dense = np.array([8, 8, 8])
    entry(dense)
    assert entry.best is None
    assert entry.curve == {}
    entry.begin()
    with pytest.raises(RuntimeError, match="cheat offers a plan above the budget"):
        entry(dense)


def test_measures_in_order_until_the_evaluations_end() -> None:
    entry = make_entry("any", cheap, 2)
    entry.begin()
    assert entry.measure([SMALL[1], SMALL[1], SMALL[0], SMALL[2], SMALL[3]]).tolist() == [
        cheap(SMALL[1]),
        cheap(SMALL[1]),
        cheap(SMALL[0]),
    ]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_the_curve_is_the_running_minimum_over_distinct_plans(order: list[int]) -> None:
    entry = make_entry("any", cheap, 4)
    entry.begin()
    for number in order:
        entry(SMALL[number])
    distinct = [cheap(SMALL[number]) for number in dict.fromkeys(order)]
    assert entry.curve == dict(enumerate(np.minimum.accumulate(distinct), start=1))
    assert entry.result.loss == min(distinct)
    assert entry.best is not None
    assert cheap(entry.best) == min(distinct)


def test_two_entries_share_the_work_and_both_are_charged() -> None:
    bank = make_bank(cheap)
    told: list[tuple[int, ...]] = []
    bank.on_new = lambda counts, evaluation, seconds: told.append(tuple(counts))
    one, other = (make_entry(name, cheap, 3, bank=bank) for name in ("one", "other"))
    for entry in (one, other):
        entry.begin()
        entry.measure(SMALL[:3])
        assert len(entry.seen) == 3
    assert bank.evaluator.calls == 3  # type: ignore[attr-defined]
    assert told == [tuple(plan) for plan in SMALL[:3]]


def test_time_that_another_method_waited_is_charged_and_is_not_ones_own() -> None:
    bank = make_bank(cheap)
    for plan, seconds in zip(SMALL, (100.0, 20.0, 3.0, 0.5), strict=True):
        bank.evaluator(plan)
        bank.seconds[tuple(plan)] = seconds
    entry = make_entry("any", cheap, 4, bank=bank)
    entry.measure([SMALL[0], SMALL[0], SMALL[2]])
    seconds, own = entry.times()
    assert 0 <= own < 50
    assert seconds - own == pytest.approx(103)


def test_the_base_plan_takes_the_sensitivities_and_two_plans() -> None:
    entry = make_entry("any", cheap, 40)
    wished = base_plan(entry)
    probes = number_of_evaluations(3)
    assert list(entry.curve) == [probes + 1, probes + 2]
    plans = list(entry.seen)[probes:]
    assert plans == [tuple(entry.lander.land(wished[None])[0]), tuple(uniform(entry.lander))]


@given(st.lists(st.lists(st.floats(-4, 4), min_size=3, max_size=3), min_size=1, max_size=5))
def test_plans_around_a_base_are_the_largest_within_the_budget(logs: list[list[float]]) -> None:
    """One more channel anywhere would be above half of the 152 MACs."""
    lander = make_entry("any", cheap, 1).lander
    for plan in around(lander, np.array([4.0, 5.0, 3.0]), np.array(logs)):
        assert macs(*plan) <= 76
        grown = np.minimum(plan + np.eye(3, dtype=int), 8)
        assert all(macs(*more) > 76 for more in grown if more.sum() > plan.sum())
