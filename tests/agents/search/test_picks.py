"""A batch holds promising plans that differ from each other and from all that are known."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from toys import make_spec

from rlprune.agents.search.archive import PlanArchive
from rlprune.agents.search.picks import are_twins, batch


class Believed:
    """The fewer channels the first group has the better, and the more the last has the less is known."""

    def fit(self, budgets: Any) -> None:
        pass

    def mean(self, counts: np.ndarray, budget: int = 0) -> np.ndarray:
        return counts[:, 0] / 100.0

    def predict(self, counts: np.ndarray, budget: int = 0) -> tuple[np.ndarray, np.ndarray]:
        return self.mean(counts), counts[:, 2] / 100.0


def taken(plans: list[list[int]], number: int, known: Sequence[list[int]] = ()) -> list[list[int]]:
    archive = PlanArchive(make_spec(None), lambda plans: [0.0] * len(plans), Believed())
    archive.add([np.array(plan) for plan in known], len(known))
    return [plan.tolist() for plan in batch(archive, np.array(plans), number)]


def distance(one: Sequence[int], other: Sequence[int]) -> float:
    return math.sqrt(sum(math.log(a / b) ** 2 for a, b in zip(one, other, strict=True)) / len(one))


FAR = [[100, 100, 100], [200, 100, 100], [300, 100, 300]]
"""Losses of 1, 2 and 3, with doubts of 1, 1 and 3: at best -0.5, 0.5 and -1.5."""


def test_forecasts_are_more_and_more_optimistic() -> None:
    assert taken(FAR, 1) == [FAR[0]]
    assert taken(FAR, 2) == [FAR[0], FAR[2]]
    assert taken(FAR, 5) == [FAR[0], FAR[2], FAR[1]]


def test_no_twin_of_a_known_plan() -> None:
    """log(1.05) / sqrt 3 = 0.028 away, whatever is expected of it."""
    assert taken(FAR, 1, known=[[105, 100, 100]]) == [FAR[1]]
    assert taken(FAR, 1, known=[[110, 100, 100]]) == [FAR[0]]


def test_no_twin_of_a_plan_of_the_batch() -> None:
    twins = [[100, number, 100] for number in range(100, 109)]
    assert taken([*twins, FAR[1]], 2) == [twins[0], FAR[1]]


def test_twins_are_better_than_nothing() -> None:
    twins = [[100 + number, 100, 100] for number in range(4)]
    assert taken(twins, 3, known=[[102, 101, 100]]) == twins[:3]


@pytest.mark.parametrize("seed", range(5))
def test_of_many_plans_none_are_twins(seed: int) -> None:
    rng = np.random.default_rng(seed)
    plans = np.unique(rng.integers(50, 80, (300, 3)), axis=0).tolist()
    known = rng.integers(50, 80, (20, 3)).tolist()
    chosen = taken([plan for plan in plans if plan not in known], 8, known)
    assert len(chosen) == 8
    assert all(distance(*pair) > 0.05 for pair in combinations(chosen, 2))
    assert all(distance(plan, other) > 0.05 for plan in chosen for other in known)


def test_twins() -> None:
    """One channel of 20 in one group of four: log(20 / 19) / 2 = 0.026; two are 0.053."""
    plans = np.array([[20, 20, 20, 20], [19, 20, 20, 20], [18, 20, 20, 20]])
    assert are_twins(plans[:1], plans, 4).tolist() == [[True, True, False]]


def test_plans_that_differ_in_a_column_are_no_twins() -> None:
    """Behind the counts of four groups stands the criterion of each."""
    plans = np.array([[20, 20, 20, 20, 0, 1, 0, 0], [19, 20, 20, 20, 0, 1, 0, 0], [20, 20, 20, 20, 0, 1, 0, 2]])
    assert are_twins(plans[:1], plans, 4).tolist() == [[True, True, False]]
