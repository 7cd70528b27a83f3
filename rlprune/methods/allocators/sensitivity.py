"""The sensitivity rule: cut one group at a time, add up the damage, spend the budget where it hurts least.

The additive loss model is as old as pruning itself (Li et al., 2017, arXiv 1608.08710, section 3.2, cut by hand); here
the curves are made convex, and smooth on wish, and the channels go greedily by damage per saved cost, the optimum of
the relaxed problem for a cost that is a sum over groups.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from rlprune.cost.budget import Budget
from rlprune.cost.exact import RESOURCES
from rlprune.cost.projection import BudgetProjector
from rlprune.errors import unknown
from rlprune.evaluation.curves import ConvexCurve
from rlprune.evaluation.metered import Allocation, AllocationProblem
from rlprune.evaluation.sensitivity import Sensitivity, measure, number_of_evaluations
from rlprune.methods.allocators.base import Allocator
from rlprune.methods.allocators.base_remeasured import plan_in_rounds

LINES, SMOOTH = CURVES = ("lines", "smooth")
"""Plans of lines end in the corners, the points that were measured; below a fifth of the MACs they recover better."""


@dataclass(frozen=True)
class SensitivityRule(Allocator):
    """Cut one group at a time, add up the damage, and spend the budget where it hurts least.

    Attributes:
        rounds: how often the curves are measured once more around the best plan.
        curves: lines from point to point, or smooth.

    Paper: Li et al., Pruning Filters for Efficient ConvNets, 2017, arXiv 1608.08710, section 3.2 (there by hand)
    """

    needs: ClassVar[tuple[str, ...]] = ("sensitivities",)

    rounds: int = 0
    curves: str = LINES

    def __post_init__(self) -> None:
        if self.curves not in CURVES:
            raise unknown("curves", self.curves, CURVES)

    def evaluations_needed(self, groups: int, budget: Budget) -> int:
        """See `Allocator.evaluations_needed`; those of the sensitivities, and the plan."""
        return number_of_evaluations(groups) + 1

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """See `Allocator.allocate`."""
        projector = problem.projector

        def planned(sensitivity: Sensitivity) -> np.ndarray:
            return projector.project(sensitivity_rule(sensitivity, projector, curves=self.curves)[None])[0]

        plan_in_rounds(problem, measure_probes(problem), planned, self.rounds)
        return problem.allocation()


def measure_probes(problem: AllocationProblem) -> Sensitivity:
    """Measure the sensitivities; whatever is evaluated afterwards may be the result."""
    sensitivity = measure(problem.losses, problem.projector)
    problem.begin()
    return sensitivity


def sensitivity_rule(
    sensitivity: Sensitivity,
    projector: BudgetProjector,
    weights: np.ndarray | None = None,
    step: float = 1 / 64,
    price: str | None = None,
    curves: str = LINES,
) -> np.ndarray:
    """The sensitivity rule's plan.

    Args:
        sensitivity: the measured curves.
        projector: cost and budget.
        weights: (2,) loss that one unit of the MACs and parameters ratio is worth. With them channels go as long as
            the predicted loss rises by less than what they cost; without, until the budget is met.
        step: fraction of a group that goes at once.
        price: the resource that damage is weighed against as long as the budget is not met; by default those whose
            bounds are exceeded.
        curves: one of `CURVES`; both are made convex.

    Returns:
        (groups,) kept counts as floats, near the budget; project them to be exactly on it.
    """
    sizes, cost = projector.sizes, projector.cost
    limits = projector.budget.fractions(cost.resources)
    keep, least = np.ones(len(sizes)), projector.minimum / sizes
    # Nothing is known below the last point of a curve: it is a last resort.
    floor = np.maximum(least, sensitivity.lowest)
    read = sensitivity.on_lines if curves == LINES else partial(ConvexCurve.of, sensitivity)
    forecasts = [read(group) for group in range(len(sizes))]
    # The next step of every group and its damage: only those of the group that was cut change.
    less, damage = np.empty_like(keep), np.empty_like(keep)

    def look_ahead(groups: Iterable[int]) -> None:
        for group in groups:
            less[group] = max(keep[group] - step, floor[group])
            damage[group] = -np.diff(forecasts[group](np.array([less[group], keep[group]])))[0]

    look_ahead(range(len(sizes)))
    while True:
        ratios = cost.ratios(keep * sizes)
        over = ratios > limits
        if weights is None and not over.any():
            return keep * sizes
        trial = np.tile(keep, (len(sizes), 1))
        np.fill_diagonal(trial, less)
        saved = ratios - cost.ratios(trial * sizes)
        # Over the budget only what relieves an exceeded bound counts; inside it, what the weights say.
        if not over.any():
            gain = saved[:, : len(RESOURCES)] @ weights
        elif price is None:
            gain = (saved / limits)[:, over].sum(axis=1)
        else:
            gain = saved[:, cost.resources.index(price)]
        movable = np.flatnonzero((less < keep) & (gain > 0))
        if not len(movable) and over.any() and (floor > least).any():
            floor = least
            look_ahead(range(len(sizes)))
            continue
        if not len(movable):
            return keep * sizes
        best = int(movable[np.argmin(damage[movable] / gain[movable])])
        if not over.any() and damage[best] >= gain[best]:
            return keep * sizes
        keep[best] = less[best]
        look_ahead([best])
