"""A search without a policy, on a loss that is known."""

import itertools

import numpy as np
from rivalry import cheap, make_problem
from toys import macs, make_spec

from rlprune.agents.allocators.mutate import MUTATIONS, Mutate, mutations


def test_it_comes_near_the_optimum_within_its_evaluations() -> None:
    plans = itertools.product(range(1, 9), repeat=3)
    best = min(cheap(np.array(plan)) for plan in plans if macs(*plan) <= 76)
    problem = make_problem("mutate", cheap, 45)
    found = Mutate().allocate(problem)
    assert len(problem.seen) <= 45
    assert macs(*found.counts) <= 76
    assert cheap(found.counts) <= 1.01 * best


def test_the_same_seed_finds_the_same() -> None:
    problems = [make_problem("mutate", cheap, 30, seed=3) for _ in range(2)]
    first, second = (Mutate().allocate(problem).counts.tolist() for problem in problems)
    assert first == second
    assert list(problems[0].seen) == list(problems[1].seen)


def test_mutations_are_full_plans_around_their_parents() -> None:
    """With few channels many round to the parent itself; none leaves room for one channel more."""
    spec, parent = make_spec(), make_spec().base_plan()
    found = mutations(spec, parent[None], np.random.default_rng(0))
    assert found.shape == (MUTATIONS, 3)
    assert (found == parent).all(axis=1).any()
    assert (found != parent).any(axis=1).mean() > 0.3
    for plan in np.unique(found, axis=0):
        assert macs(*plan) <= 76
        for group in range(3):
            more = plan + np.eye(3, dtype=int)[group]
            assert more[group] > 8 or macs(*more) > 76


def test_it_chooses_criteria_where_there_are_several() -> None:
    """The first group is right with the second criterion, the others with the first."""
    right = np.array([1, 0, 0])

    def by_criteria(plan: np.ndarray) -> float:
        wrong = (1 - plan[:3] / 8) * (plan[3:] != right)
        return cheap(plan[:3]) + float(wrong.sum())

    problem = make_problem("mutate", by_criteria, 45)
    problem.decisions = ("channels", "criteria:number=2")
    found = Mutate().allocate(problem)
    assert (found.counts[3:] == right)[found.counts[:3] < 8].all()
    plans = (plan for plan in itertools.product(range(1, 9), repeat=3) if macs(*plan) <= 76)
    assert by_criteria(found.counts) <= 1.05 * min(by_criteria(np.array([*plan, *right])) for plan in plans)
