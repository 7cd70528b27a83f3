"""Sensitivity curves: how much the loss rises when one group alone is cut.

Kept counts are whole and may have to be multiples, so that a cut of a narrow group to 0.1 can end far from there:
a curve holds the ratios that were really measured.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rlprune.cost.projection import BudgetProjector
from rlprune.plans.counts import plan_key

KEEP_RATIOS = (0.5, 0.25, 0.1)
"""Where each group's curve is asked for, alone; between the points it is interpolated."""


@dataclass(frozen=True)
class Sensitivity:
    """How much the loss rises when one group alone is cut.

    Attributes:
        ratios: (groups, points) keep ratios from 1 downwards, as they were measured; a ratio stands twice where two
            cuts come to the same count. They may be given as (points,) where they are the same for all groups.
        rises: (groups, points) rise of the loss over the dense network's; the first column is 0.
        blocks: of every residual block that was taken out alone its inner groups and the rise of the loss; empty where
            nobody asked for them.
    """

    ratios: np.ndarray
    rises: np.ndarray
    blocks: tuple[tuple[tuple[int, ...], float], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratios", np.broadcast_to(self.ratios, self.rises.shape))

    @property
    def lowest(self) -> np.ndarray:
        """(groups,) the lowest ratio that was measured of every group: nothing is known below."""
        return self.ratios[:, -1]

    def curve(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        """The measured points of one group, every ratio once: ratios upwards, and their rises."""
        ratios, places = np.unique(self.ratios[group], return_index=True)
        return ratios, self.rises[group, places]

    def read(self, group: int, ratios: np.ndarray) -> np.ndarray:
        """What was measured of one group, on straight lines between the points and flat below the lowest."""
        return np.interp(ratios, *self.curve(group))

    def predict(self, keep: np.ndarray) -> np.ndarray:
        """The additive model: (..., groups) keep ratios -> (...,) predicted rise of the loss."""
        return np.sum(self.parts(keep), axis=0)

    def parts(self, keep: np.ndarray) -> list[np.ndarray]:
        """For every group (...,) the rise of the loss that its own keep ratio of (..., groups) foretells.

        What a block that is taken out costs stands with its first inner group.
        """
        found = [np.interp(keep[..., g], *hull) for g, hull in enumerate(self._hulls)]
        for groups, rise in self.blocks:
            out = (keep[..., list(groups)] == 0).all(axis=-1)
            for place, group in enumerate(groups):
                found[group] = np.where(out, max(rise, 0.0) if place == 0 else 0.0, found[group])
        return found

    def on_lines(self, group: int) -> Callable[[np.ndarray], np.ndarray]:
        """The additive model's curve of one group: ratios -> rises, on straight lines and flat below the lowest."""
        ratios, rises = self._hulls[group]
        return lambda keep: np.interp(keep, ratios, rises)

    @cached_property
    def _hulls(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The allocation asks for predictions hundreds of times."""
        made = Sensitivity(self.ratios, convex(self))
        return [made.curve(group) for group in range(len(self.rises))]


def number_of_evaluations(groups: int, blocks: int = 0) -> int:
    """How many evaluations `measure` makes at most: fewer where cuts come to the same count."""
    return 1 + groups * len(KEEP_RATIOS) + blocks


def measure(
    losses: Callable[[list[np.ndarray]], Sequence[float]],
    projector: BudgetProjector,
    blocks: Sequence[tuple[int, ...]] = (),
) -> Sensitivity:
    """Measure every group's curve, and what every block costs.

    Args:
        losses: plans, (groups,) kept counts each and no two the same -> their losses on the search split.
        projector: knows the sizes and the allowed counts.
        blocks: inner groups of residual blocks, each of which is taken out alone.
    """
    sizes = projector.sizes
    cuts = np.array([projector.quantise(np.maximum(sizes * ratio, 1)) for ratio in (1.0, *KEEP_RATIOS)]).T
    plans = {plan_key(sizes): sizes}
    for group, counts in enumerate(cuts):
        for count in counts:
            plan = _alone(sizes, group, count)
            plans.setdefault(plan_key(plan), plan)
    without = [np.where(np.isin(np.arange(len(sizes)), groups), 0, sizes) for groups in blocks]
    plans |= {plan_key(plan): plan for plan in without}
    found = dict(zip(plans, losses(list(plans.values())), strict=True))
    dense = found[plan_key(sizes)]
    rises = [[found[plan_key(_alone(sizes, group, count))] - dense for count in row] for group, row in enumerate(cuts)]
    gone = ((groups, found[plan_key(plan)] - dense) for groups, plan in zip(blocks, without, strict=True))
    return Sensitivity(cuts / sizes[:, None], np.array(rises), tuple(gone))


def measure_around(
    losses: Callable[[list[np.ndarray]], Sequence[float]],
    projector: BudgetProjector,
    plan: np.ndarray,
    before: Sensitivity,
    span: float,
) -> Sensitivity:
    """Measure every group's curve with the other groups standing as in a plan, instead of whole.

    Args:
        losses: as for `measure`; plans need not be inside the budget.
        projector: knows the sizes and the allowed counts.
        plan: (groups,) kept counts.
        before: curves that were measured before. Above the widest point that is measured here they go on from there;
            below the narrowest one nothing is known.
        span: how far from the plan points are, as a factor: in every group two above it and two below.

    Returns:
        Rises over the loss that a wide group would leave, so that they compare within a group, and their differences
        between groups.
    """
    sizes = projector.sizes
    rows = points_around(projector, plan, span)
    plans = {plan_key(plan): plan}
    for group, counts in enumerate(rows):
        for count in counts:
            trial = _alone(plan, group, count)
            plans.setdefault(plan_key(trial), trial)
    found = dict(zip(plans, losses(list(plans.values())), strict=True))
    curves = []
    for group, counts in enumerate(rows):
        here = np.array([found[plan_key(_alone(plan, group, count))] for count in counts])
        ratios, rises = before.curve(group)
        wide = ratios > counts[-1] / sizes[group]
        further = rises[wide] - np.interp(counts[-1] / sizes[group], ratios, rises)
        points = np.append(counts / sizes[group], ratios[wide])
        values = np.append(here, here[-1] + further)
        curves.append((points[::-1], (values - values[-1])[::-1]))
    # A row of fewer points repeats its last.
    longest = max(len(points) for points, _ in curves)
    padded = [[np.pad(part, (0, longest - len(part)), mode="edge") for part in curve] for curve in curves]
    points, values = (np.array(part) for part in zip(*padded, strict=True))
    return Sensitivity(points, values)


def points_around(projector: BudgetProjector, plan: np.ndarray, span: float) -> list[np.ndarray]:
    """For every group the counts upwards that `measure_around` measures, its own one among them."""
    wished = [np.minimum(plan * span**power, projector.sizes) for power in (-1, -0.5, 0, 0.5, 1)]
    return [np.unique(row) for row in np.array([projector.quantise(counts) for counts in wished]).T]


def _alone(sizes: np.ndarray, group: int, count: int) -> np.ndarray:
    """A plan with one group cut otherwise."""
    plan = sizes.copy()
    plan[group] = count
    return plan


def convex(sensitivity: Sensitivity) -> np.ndarray:
    """(groups, points) the curves made to rise and made convex.

    Each is the greatest convex curve below the running maximum of what was measured, so that noise cannot make a cut
    look like a gain.
    """
    curves = np.maximum.accumulate(np.maximum(sensitivity.rises, 0), axis=1)
    hulls = np.empty_like(curves)
    for row, (ratios, curve) in enumerate(zip(sensitivity.ratios, curves, strict=True)):
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
