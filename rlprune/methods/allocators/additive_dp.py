"""The optimum of the additive loss model under the coupled cost, by dynamic programming.

Every group's measured curve is made to rise and smooth (see `rlprune.evaluation.curves`). The sum of the curves is then
minimised inside the budget.

The programme goes from group to group. A state is a plan whose groups so far are decided while the others stand as in a
reference plan, and it is known by its damage and its exact cost; it is dropped where another one is no worse in damage
and in every cost that is bounded (Nemhauser and Ullmann, 1969). The solution is the next sweep's reference. Where costs
add up over groups, the order of two states does not depend on what follows, so that the result is the exact optimum as
long as no more states are left than are held. Where they multiply, as the MACs of a layer do in its inputs and outputs,
it is a heuristic whose cost is exact at every step; further sweeps, in the other direction and from other references,
mend most of what dropping a state has lost.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from rlprune.cost.budget import Budget
from rlprune.cost.projection import BudgetProjector
from rlprune.evaluation.curves import smooth_curve
from rlprune.evaluation.metered import Allocation, AllocationProblem
from rlprune.evaluation.sensitivity import Sensitivity, number_of_evaluations
from rlprune.methods.allocators.base import Allocator
from rlprune.methods.allocators.base_remeasured import plan_in_rounds
from rlprune.methods.allocators.sensitivity import SMOOTH, measure_probes, sensitivity_rule
from rlprune.methods.allocators.uniform import uniform

STATES = 512
"""How many states go from a group to the next, at most."""
DEEP = 8192
"""How many states a sweep holds over all groups, but 64 a group at least: deep networks shall not take minutes."""
CHOICES = 32
"""Counts of a group that a sweep tries; where there are more, evenly in their logarithm."""
CELLS = 2048
"""Of more states than these under several bounds, one in each of as many cells of a grid over their costs."""
BLOCK = 256
"""How many states are compared with all before them at once."""
SPANS = (np.inf, np.inf, 2.0, 2.0, 1.4, 1.4, 1.2, 1.2, 1.1, 1.1)
"""How far from the reference the counts of a sweep may be, as a factor: first anywhere, then ever nearer and finer."""


@dataclass(frozen=True)
class AdditiveDP(Allocator):
    """The best plan by the sum of smooth monotone sensitivity curves, found by dynamic programming.

    Attributes:
        rounds: how often the curves are measured once more around the best plan.

    Paper: Nemhauser and Ullmann, Discrete dynamic programming and capital allocation, Management Science 15, 1969
    """

    needs: ClassVar[tuple[str, ...]] = ("sensitivities",)

    rounds: int = 0

    def evaluations_needed(self, groups: int, budget: Budget) -> int:
        """See `Allocator.evaluations_needed`; those of the sensitivities, and the plan."""
        return number_of_evaluations(groups) + 1

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """See `Allocator.allocate`."""
        sensitivity = measure_probes(problem)
        plan_in_rounds(problem, sensitivity, lambda curves: additive_optimum(curves, problem.projector), self.rounds)
        return problem.allocation()


def additive_optimum(sensitivity: Sensitivity, projector: BudgetProjector) -> np.ndarray:
    """(groups,) kept counts inside the budget with the least predicted damage.

    As with the rule, no group goes below what was measured of it unless the budget cannot be met otherwise.
    """
    model = _Model.of(sensitivity, projector)
    rule = projector.project(sensitivity_rule(sensitivity, projector, curves=SMOOTH)[None])[0]
    found = [_descend(model, start, SPANS[:2]) for start in (rule, uniform(projector))]
    best = _descend(model, min(found, key=model.damage), SPANS[2:])
    # No curve falls with more channels: what is left of the budget does no harm.
    return projector.fill(best[None])[0]


@dataclass(frozen=True)
class _Model:
    """What is minimised, and inside which bounds.

    Attributes:
        projector: sizes, cost and budget.
        allowed: for every group the counts that it may keep.
        damages: for every group the predicted rises at them.
        bounded: (resources,) whether a resource is.
    """

    projector: BudgetProjector
    allowed: list[np.ndarray]
    damages: list[np.ndarray]
    bounded: np.ndarray = field(repr=False)

    @staticmethod
    def of(sensitivity: Sensitivity, projector: BudgetProjector) -> "_Model":
        sizes = projector.sizes
        floor = np.maximum(np.round(sensitivity.lowest * sizes).astype(np.int64), projector.minimum)
        if not projector.fits(floor):
            floor = projector.minimum
        allowed = [projector.allowed(group) for group in range(len(sizes))]
        allowed = [counts[counts >= least] for counts, least in zip(allowed, floor, strict=True)]
        damages = [smooth_curve(sensitivity, group, counts / sizes[group]) for group, counts in enumerate(allowed)]
        return _Model(projector, allowed, damages, np.isfinite(projector.caps))

    def damage(self, counts: np.ndarray) -> float:
        """The predicted rise of one plan; infinite where it keeps what no group may."""
        places = [np.flatnonzero(counts[group] == allowed) for group, allowed in enumerate(self.allowed)]
        if not all(map(len, places)):
            return np.inf
        return float(sum(damages[place[0]] for damages, place in zip(self.damages, places, strict=True)))

    def usage(self, plans: np.ndarray) -> np.ndarray:
        """(plans, bounded resources) costs relative to their bounds."""
        return (self.projector.cost(plans) / self.projector.caps)[:, self.bounded]


def _descend(model: _Model, start: np.ndarray, spans: tuple[float, ...]) -> np.ndarray:
    """Sweeps, each with the best solution so far as its reference."""
    reference, value = start, model.damage(start)
    for number, span in enumerate(spans):
        order = np.arange(len(start))[:: 1 - 2 * (number % 2)]
        found = _sweep(model, reference, order, span)
        if found is not None and (damage := model.damage(found)) < value:
            reference, value = found, damage
    return reference


def _sweep(model: _Model, reference: np.ndarray, order: np.ndarray, span: float) -> np.ndarray | None:
    """The best plan inside the budget that the programme meets on its way over the groups, None if there is none."""
    smallest = np.array([counts[0] for counts in model.allowed])
    plans, damage = reference[None].copy(), np.zeros(1)
    for place, group in enumerate(order):
        choice = _choices(model.allowed[group], reference[group], span)
        grown = np.repeat(plans, len(choice), axis=0)
        grown[:, group] = np.tile(model.allowed[group][choice], len(plans))
        total = (damage[:, None] + model.damages[group][choice]).ravel()
        usage = model.usage(grown)
        kept = undominated(total, usage)
        # Hopeless are those that do not fit even with the least of what is still to come.
        ahead = grown[kept].copy()
        ahead[:, order[place + 1 :]] = smallest[order[place + 1 :]]
        kept = kept[model.projector.fits(ahead)]
        kept = _thin(kept, usage[kept].max(axis=1, initial=0), int(np.clip(DEEP // len(order), 64, STATES)))
        plans, damage = grown[kept], total[kept]
    return plans[np.argmin(damage)] if len(plans) else None


def _choices(allowed: np.ndarray, centre: int, span: float) -> np.ndarray:
    """Indices of the counts that a sweep tries of one group."""
    near = np.flatnonzero((allowed >= centre / span) & (allowed <= centre * span))
    if len(near) <= CHOICES:
        return near if len(near) else np.array([np.abs(allowed - centre).argmin()])
    wished = np.geomspace(allowed[near[0]], allowed[near[-1]], CHOICES)
    own = np.abs(allowed - centre).argmin()
    return np.union1d(np.minimum(np.searchsorted(allowed, wished * (1 - 1e-9)), near[-1]), own)


def _thin(kept: np.ndarray, usage: np.ndarray, held: int) -> np.ndarray:
    """As many states as are held, evenly over what they use."""
    if len(kept) <= held:
        return kept
    return kept[np.argsort(usage)[np.linspace(0, len(kept) - 1, held).astype(int)]]


def undominated(damage: np.ndarray, usage: np.ndarray) -> np.ndarray:
    """Indices of the states that no other one equals or betters in everything.

    Args:
        damage: (states,).
        usage: (states, bounded resources).
    """
    order = np.lexsort((usage.max(axis=1, initial=0), damage))
    if usage.shape[1] == 1:
        # In the order of damage only those count that use less than all before them.
        least = np.minimum.accumulate(usage[order, 0])
        return order[np.append(True, usage[order[1:], 0] < least[:-1])]
    order = _first_of_cells(order, usage)
    usage = usage[order]
    kept = np.empty(0, dtype=np.int64)
    for start in range(0, len(order), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(order)))
        block = block[~_betters(usage[kept], usage[block]).any(axis=1)]
        kept = np.append(kept, block[~np.tril(_betters(usage[block], usage[block]), -1).any(axis=1)])
    return order[kept]


def _betters(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(others, some) whether one of some uses no more than one of the others of anything."""
    return np.asarray((some[None] <= others[:, None]).all(axis=-1))


def _first_of_cells(order: np.ndarray, usage: np.ndarray) -> np.ndarray:
    """Of very many states the first in every cell of a grid over what they use: comparing all with all would last."""
    if len(order) <= CELLS or not usage.shape[1]:
        return order
    logs, sides = np.log(usage), int(CELLS ** (1 / usage.shape[1]))
    low, high = logs.min(axis=0), logs.max(axis=0)
    places = ((logs - low) / np.maximum(high - low, 1e-12) * sides).astype(np.int64)
    cells = places @ (sides + 1) ** np.arange(usage.shape[1])
    return order[np.sort(np.unique(cells[order], return_index=True)[1])]
