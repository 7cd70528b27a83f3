"""Sensitivity curves: how much the loss rises when one group alone is cut."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rlprune.cost.projection import BudgetProjector

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


def measure(losses: Callable[[list[np.ndarray]], Sequence[float]], projector: BudgetProjector) -> Sensitivity:
    """Measure every group's curve; `number_of_evaluations` evaluations.

    Args:
        losses: plans, (groups,) kept counts each -> their losses on the search split.
        projector: knows the sizes and the allowed counts.
    """
    sizes, plans = projector.sizes, [projector.sizes]
    for group in range(len(sizes)):
        for ratio in KEEP_RATIOS:
            counts = sizes.copy()
            counts[group] = projector.quantise(np.maximum(sizes * ratio, 1))[group]
            plans.append(counts)
    dense, *cut = losses(plans)
    rises = np.array(cut).reshape(len(sizes), len(KEEP_RATIOS)) - dense
    return Sensitivity(np.array([1.0, *KEEP_RATIOS]), np.column_stack([np.zeros(len(sizes)), rises]))


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
