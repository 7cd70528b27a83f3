"""Curves measured once more around the plan that they have led to, for losses that do not add up."""

from collections.abc import Callable

import numpy as np

from rlprune.evaluation.metered import AllocationProblem
from rlprune.evaluation.sensitivity import Sensitivity, measure_around, points_around

SPAN = 2.0
"""How far from the plan its curves are measured in the first round, as a factor; in every round half as far."""
Planned = Callable[[Sensitivity], np.ndarray]
"""Curves -> a plan inside the budget, (groups,) kept counts."""


def plan_in_rounds(problem: AllocationProblem, sensitivity: Sensitivity, planned: Planned, rounds: int) -> None:
    """Measure the plan that curves lead to; then, round by round, its own curves and the plan that these lead to.

    Every round starts from the best plan so far, and there is none for which the evaluations do not last.

    Args:
        problem: counts the evaluations, and keeps the best plan.
        sensitivity: curves of the dense network.
        planned: the rule that makes plans of curves.
        rounds: how many.
    """
    problem(planned(sensitivity))
    for number in range(rounds):
        assert problem.best is not None
        best, span = problem.best, SPAN ** (0.5**number)
        points = sum(map(len, points_around(problem.projector, best, span))) - len(best)
        if problem.left <= points:
            return
        problem(planned(measure_around(problem.probe, problem.projector, best, sensitivity, span)))
