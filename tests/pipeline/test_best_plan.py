"""The best plan so far, on three groups of eight channels whose MACs are a + a b + b c + 2 c."""

import math

import numpy as np
from toys import macs, make_spec

from rlprune.cost.budget import parse_budget
from rlprune.cost.projection import BudgetProjector
from rlprune.pipeline.best_plan import BestPlan
from rlprune.tasks.base import Evaluation

SMALL, MIDDLE, WHOLE = (2, 2, 2), (4, 4, 4), (8, 8, 8)


def test_before_it_is_known_what_counts_nothing_does() -> None:
    best = BestPlan()
    best.compare(np.array(SMALL), Evaluation(1.0, 0.5))
    assert best.counts is None
    assert best.loss is None
    assert math.isnan(best.evaluation.loss)


def test_only_what_is_inside_the_budget_and_better_counts() -> None:
    assert macs(*WHOLE) > 0.5 * 152 > macs(*MIDDLE)
    best = BestPlan()
    best.count(make_spec("macs=0.5"), [(SMALL, Evaluation(2.0, 0.3)), (WHOLE, Evaluation(0.1, 0.9))])
    assert (best.loss, tuple(best.counts)) == (2.0, SMALL)  # type: ignore[arg-type]
    best.compare(np.array(MIDDLE), Evaluation(2.5, 0.4))
    assert best.loss == 2.0
    best.compare(np.array(MIDDLE), Evaluation(1.5, 0.4))
    assert (best.loss, best.evaluation.accuracy) == (1.5, 0.4)


def test_under_a_corrected_cost_another_plan_may_be_the_best() -> None:
    known = [(SMALL, Evaluation(2.0, 0.3)), (MIDDLE, Evaluation(1.0, 0.6))]
    best, spec = BestPlan(), make_spec("macs=0.5")
    best.project(spec.projector, known)
    assert best.counts is None
    best.count(spec, known)
    assert best.loss == 1.0
    # 2 + 4 + 4 + 4 = 14 MACs are inside 20 % of 152, and 4 + 16 + 16 + 8 = 44 are not.
    best.project(BudgetProjector(spec.projector.cost, parse_budget("macs=0.2")), known)
    assert best.loss == 2.0


def test_losses_that_are_measured_otherwise_are_not_compared() -> None:
    best = BestPlan()
    best.count(make_spec("macs=0.5"), [(SMALL, Evaluation(0.5, 0.8))])
    best.restart([])
    assert best.loss == 0.5
    best.compare(np.array(MIDDLE), Evaluation(0.9, 0.7))
    assert best.loss == 0.9
