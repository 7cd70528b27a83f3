"""The referee counts right, and nobody gets past it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rivalry import cheap, make_cache, make_problem
from toys import macs

from rlprune.evaluation.metered import EvaluationCache
from rlprune.evaluation.sensitivity import number_of_evaluations
from rlprune.methods.allocators.base import around
from rlprune.methods.allocators.base_plans import base_plan
from rlprune.methods.allocators.uniform import uniform

SMALL = [np.array(plan) for plan in ([1, 1, 1], [2, 1, 1], [2, 2, 1], [3, 2, 2])]


def test_a_plan_counts_once_however_often_it_is_asked_for() -> None:
    problem = make_problem("any", cheap, 2)
    problem.begin()
    for plan in (SMALL[0], SMALL[1], SMALL[0], SMALL[1]):
        assert problem(plan).loss == cheap(plan)
    assert (len(problem.seen), problem.left) == (2, 0)


def test_what_is_known_stays_free_when_nothing_is_left_and_more_is_against_the_rules() -> None:
    problem = make_problem("greedy", cheap, 1)
    problem.begin()
    problem(SMALL[0])
    problem(SMALL[0])
    with pytest.raises(RuntimeError, match="greedy asks for more than 1 evaluations"):
        problem(SMALL[1])


def test_plans_above_the_budget_may_be_probed_but_not_offered() -> None:
    problem = make_problem("cheat", cheap, 5)
    dense = np.array([8, 8, 8])
    problem(dense)
    assert problem.best is None
    assert problem.curve == {}
    problem.begin()
    with pytest.raises(RuntimeError, match="cheat offers a plan above the budget"):
        problem(dense)


def test_measures_in_order_until_the_evaluations_end() -> None:
    problem = make_problem("any", cheap, 2)
    problem.begin()
    assert problem.measure([SMALL[1], SMALL[1], SMALL[0], SMALL[2], SMALL[3]]).tolist() == [
        cheap(SMALL[1]),
        cheap(SMALL[1]),
        cheap(SMALL[0]),
    ]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_the_curve_is_the_running_minimum_over_distinct_plans(order: list[int]) -> None:
    problem = make_problem("any", cheap, 4)
    problem.begin()
    for number in order:
        problem(SMALL[number])
    distinct = [cheap(SMALL[number]) for number in dict.fromkeys(order)]
    assert problem.curve == dict(enumerate(np.minimum.accumulate(distinct), start=1))
    assert problem.result.loss == min(distinct)
    assert problem.best is not None
    assert cheap(problem.best) == min(distinct)


def test_two_entries_share_the_work_and_both_are_charged() -> None:
    cache = make_cache(cheap)
    told: list[tuple[int, ...]] = []
    cache.on_new = lambda counts, evaluation, seconds: told.append(tuple(counts))
    one, other = (make_problem(name, cheap, 3, cache=cache) for name in ("one", "other"))
    for problem in (one, other):
        problem.begin()
        problem.measure(SMALL[:3])
        assert len(problem.seen) == 3
    assert cache.evaluator.calls == 3  # type: ignore[attr-defined]
    assert told == [tuple(plan) for plan in SMALL[:3]]


def test_time_that_another_method_waited_is_charged_and_is_not_ones_own() -> None:
    cache = make_cache(cheap)
    for plan, seconds in zip(SMALL, (100.0, 20.0, 3.0, 0.5), strict=True):
        cache.evaluator(plan)
        cache.seconds[tuple(plan)] = seconds
    problem = make_problem("any", cheap, 4, cache=cache)
    problem.measure([SMALL[0], SMALL[0], SMALL[2]])
    seconds, own = problem.times()
    assert 0 <= own < 50
    assert seconds - own == pytest.approx(103)


def test_scores_are_made_once_and_whoever_asks_for_them_pays() -> None:
    cache = make_cache(cheap)
    asked: list[str] = []
    cache.score = lambda name: asked.append(name) or np.arange(24.0)  # type: ignore[func-returns-value]
    for _ in range(2):
        assert make_problem("any", cheap, 1, cache=cache).scores_by("taylor:order=2").tolist() == list(range(24))
    assert asked == ["taylor:order=2"]
    cache.scored["l1"] = np.ones(24), 100.0
    problem = make_problem("any", cheap, 1, cache=cache)
    problem.scores_by("l1")
    seconds, own = problem.times()
    assert 100 <= own == seconds < 150


def test_without_criteria_there_are_no_scores() -> None:
    cache = EvaluationCache(make_cache(cheap).evaluator)
    with pytest.raises(RuntimeError, match="nobody has said how to score by snip"):
        make_problem("any", cheap, 1, cache=cache).scores_by("snip")


def test_the_base_plan_takes_the_sensitivities_and_two_plans() -> None:
    problem = make_problem("any", cheap, 40)
    wished = base_plan(problem)
    probes = number_of_evaluations(3)
    assert list(problem.curve) == [probes + 1, probes + 2]
    plans = list(problem.seen)[probes:]
    assert plans == [tuple(problem.projector.project(wished[None])[0]), tuple(uniform(problem.projector))]


@given(st.lists(st.lists(st.floats(-4, 4), min_size=3, max_size=3), min_size=1, max_size=5))
def test_plans_around_a_base_are_the_largest_within_the_budget(logs: list[list[float]]) -> None:
    """One more channel anywhere would be above half of the 152 MACs."""
    projector = make_problem("any", cheap, 1).projector
    for plan in around(projector, np.array([4.0, 5.0, 3.0]), np.array(logs)):
        assert macs(*plan) <= 76
        grown = np.minimum(plan + np.eye(3, dtype=int), 8)
        assert all(macs(*more) > 76 for more in grown if more.sum() > plan.sum())
