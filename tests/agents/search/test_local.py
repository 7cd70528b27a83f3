"""What a few evaluations are spent on."""

from typing import Any

import numpy as np
import pytest
from toys import make_spec, score

from rlprune.agents.search.local import refine
from rlprune.tasks.base import Evaluation


class Counting:
    """An evaluator of the toy network that remembers what it was asked."""

    def __init__(self, known: list[list[int]] = []) -> None:  # noqa: B006
        self.seen: dict[tuple[int, ...], Evaluation] = {}
        for counts in known:
            self(np.array(counts))
        self.asked: list[list[int]] = []

    def __call__(self, counts: np.ndarray) -> Evaluation:
        key = tuple(counts.tolist())
        if key not in self.seen:
            self.seen[key] = Evaluation(float(score(counts[None])[0]), 0.5)
            if hasattr(self, "asked"):
                self.asked.append(counts.tolist())
        return self.seen[key]


WORSE, BETTER = [6, 5, 5], [2, 7, 6]
"""71 and 2 + 14 + 42 + 12 = 70 of 76 MACs: 16 and 15 channels; the toy's loss falls with their number."""


def best(evaluations: int, plans: list[list[int]], known: list[list[int]] | None = None) -> tuple[list[int], Any]:
    evaluator: Any = Counting(known or [])
    found = refine(make_spec(), [np.array(plan) for plan in plans], evaluator, evaluations, seed=0)
    return found.tolist(), evaluator


def test_without_evaluations_the_first_is_trusted() -> None:
    found, evaluator = best(0, [BETTER, WORSE])
    assert (found, evaluator.asked) == (BETTER, [])
    # Even if another one is known: of the first it is not known whether it is worse.
    assert best(0, [BETTER, WORSE], known=[WORSE])[0] == BETTER


def test_what_is_known_costs_nothing() -> None:
    found, evaluator = best(0, [BETTER, WORSE], known=[WORSE, BETTER])
    assert (found, evaluator.asked) == (WORSE, [])


@pytest.mark.parametrize(("evaluations", "asked"), [(1, [BETTER]), (2, [BETTER, WORSE])])
def test_the_given_plans_come_first(evaluations: int, asked: list[list[int]]) -> None:
    found, evaluator = best(evaluations, [BETTER, WORSE])
    assert evaluator.asked == asked
    assert found == asked[-1]


def test_then_those_around_the_best() -> None:
    found, evaluator = best(12, [BETTER, WORSE])
    assert 2 < len(evaluator.asked) <= 12
    projector = make_spec().projector
    assert all(projector.fits(np.array(counts)) for counts in evaluator.asked)
    losses = {tuple(counts): evaluator(np.array(counts)).loss for counts in evaluator.asked}
    assert losses[tuple(found)] == min(losses.values())
    assert best(12, [BETTER, WORSE])[0] == found
