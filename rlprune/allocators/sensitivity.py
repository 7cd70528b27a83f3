"""The sensitivity rule: cut one group at a time, add up the damage, spend the budget where it hurts least.

The additive loss model is as old as pruning itself (Li et al., 2017, arXiv 1608.08710, section 3.2, cut by hand); here
the curves are made convex and the channels go greedily by damage per saved cost, the optimum of the relaxed problem
for a cost that is a sum over groups.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rlprune.budget import Lander
from rlprune.cost import RESOURCES

KEEP_RATIOS = (0.5, 0.25, 0.1)
"""Where each group's curve is measured, alone; between the points it is interpolated."""


@dataclass(frozen=True)
class Sensitivity:
    """How much the loss rises when one group alone is cut.

    Attributes:
        ratios: (points,) keep ratios from 1 downwards, the same for all groups.
        rises: (groups, points) rise of the loss over the dense network's; the first column is 0.
    """

    ratios: np.ndarray
    rises: np.ndarray

    def predict(self, keep: np.ndarray) -> np.ndarray:
        """The additive model: (..., groups) keep ratios -> (...,) predicted rise of the loss."""
        return np.sum(self.parts(keep), axis=0)

    def parts(self, keep: np.ndarray) -> list[np.ndarray]:
        """For every group (...,) the rise of the loss that its own keep ratio of (..., groups) foretells."""
        ratios = self.ratios[::-1]
        return [np.interp(keep[..., g], ratios, curve[::-1]) for g, curve in enumerate(self._convex)]

    @cached_property
    def _convex(self) -> np.ndarray:
        """The allocation asks for predictions hundreds of times."""
        return convex(self)


def number_of_evaluations(groups: int) -> int:
    """How many evaluations `measure` makes."""
    return 1 + groups * len(KEEP_RATIOS)


def measure(loss: Callable[[np.ndarray], float], lander: Lander) -> Sensitivity:
    """Measure every group's curve; `number_of_evaluations` evaluations.

    Args:
        loss: (groups,) kept counts -> loss on the search split.
        lander: knows the sizes and the allowed counts.
    """
    sizes = lander.sizes
    dense = loss(sizes)
    rises = np.zeros((len(sizes), len(KEEP_RATIOS) + 1))
    for group in range(len(sizes)):
        for point, ratio in enumerate(KEEP_RATIOS, start=1):
            counts = sizes.copy()
            counts[group] = lander.quantise(np.maximum(sizes * ratio, 1))[group]
            rises[group, point] = loss(counts) - dense
    return Sensitivity(np.array([1.0, *KEEP_RATIOS]), rises)


def convex(sensitivity: Sensitivity) -> np.ndarray:
    """(groups, points) the curves made to rise and made convex.

    Each is the greatest convex curve below the running maximum of what was measured, so that noise cannot make a cut
    look like a gain.
    """
    ratios = sensitivity.ratios
    curves = np.maximum.accumulate(np.maximum(sensitivity.rises, 0), axis=1)
    hulls = np.empty_like(curves)
    for row, curve in enumerate(curves):
        hull = [0]
        for point in range(1, len(ratios)):
            hull.append(point)
            while len(hull) > 2 and _not_convex(ratios, curve, hull[-3:]):
                del hull[-2]
        order = hull[::-1]
        hulls[row] = np.interp(ratios, ratios[order], curve[order])
    return hulls


def _not_convex(ratios: np.ndarray, curve: np.ndarray, three: list[int]) -> bool:
    a, b, c = three
    return (curve[b] - curve[a]) * (ratios[b] - ratios[c]) >= (curve[c] - curve[b]) * (ratios[a] - ratios[b])


def allocate(
    sensitivity: Sensitivity,
    lander: Lander,
    weights: np.ndarray | None = None,
    step: float = 1 / 64,
    price: str | None = None,
) -> np.ndarray:
    """The sensitivity rule's plan.

    Args:
        sensitivity: the measured curves.
        lander: cost and budget.
        weights: (2,) loss that one unit of the MACs and parameters ratio is worth. With them channels go as long as
            the predicted loss rises by less than what they cost; without, until the budget is met.
        step: fraction of a group that goes at once.
        price: the resource that damage is weighed against as long as the budget is not met; by default those whose
            bounds are exceeded.

    Returns:
        (groups,) kept counts as floats, near the budget; land them to be exactly on it.
    """
    sizes, cost = lander.sizes, lander.cost
    limits = lander.budget.fractions(cost.resources)
    keep, least = np.ones(len(sizes)), lander.minimum / sizes
    # Nothing is known below the last point of the curves: it is a last resort.
    floor = np.maximum(least, sensitivity.ratios[-1])
    while True:
        ratios = cost.ratios(keep * sizes)
        over = ratios > limits
        if weights is None and not over.any():
            return keep * sizes
        trial = np.tile(keep, (len(sizes), 1))
        np.fill_diagonal(trial, np.maximum(keep - step, floor))
        damage = sensitivity.predict(trial) - sensitivity.predict(keep)
        saved = ratios - cost.ratios(trial * sizes)
        # Over the budget only what relieves an exceeded bound counts; inside it, what the weights say.
        if not over.any():
            gain = saved[:, : len(RESOURCES)] @ weights
        elif price is None:
            gain = (saved / limits)[:, over].sum(axis=1)
        else:
            gain = saved[:, cost.resources.index(price)]
        movable = np.flatnonzero((trial.diagonal() < keep) & (gain > 0))
        if not len(movable) and over.any() and (floor > least).any():
            floor = least
            continue
        if not len(movable):
            return keep * sizes
        best = movable[np.argmin(damage[movable] / gain[movable])]
        if not over.any() and damage[best] >= gain[best]:
            return keep * sizes
        keep = trial[best]
