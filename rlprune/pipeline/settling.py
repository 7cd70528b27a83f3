"""The last word on a latency: a plan is measured, and projected anew where the model was wrong."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from rlprune.cost.budget import LATENCY, Budget
from rlprune.cost.projection import BudgetProjector
from rlprune.errors import UserError
from rlprune.latency.model import TimedCost
from rlprune.latency.overhead import Line

LIMIT = 0.05
"""How far a measurement may be from the budget before the model is corrected."""
FAR = 0.2
"""How far below the budget a plan may end before that is told."""
TRIES = 6
STRIDE = 8
"""How far a bound moves at once, at most, as a factor."""
Measured = dict[str, Any]


@dataclass(frozen=True)
class Settled:
    """Where it ended.

    Attributes:
        counts: (groups,) kept counts of the plan.
        measured: what was measured of it.
        line: how far the model is from what was measured.
        told: what was done on the way.
        warnings: what is not as it was asked for.
    """

    counts: np.ndarray
    measured: Measured
    line: Line
    told: list[str]
    warnings: list[str]


@dataclass(frozen=True)
class Trial:
    """A plan that was measured: the model's share of the dense network's time, and what it takes of what it may."""

    counts: np.ndarray
    foretold: float
    off: float
    measured: Measured


def settle(projector: BudgetProjector, counts: np.ndarray, measure: Callable[[np.ndarray], Measured]) -> Settled:
    """A plan whose measured latency is the budget's, from above as from below.

    All plans that are tried are the first one, projected onto another bound by the model. The bound moves by as much as
    the first was wrong, then along the line through the last two, since what no channel saves takes its time in every
    plan; as soon as one was too slow and another too fast it lies between these.

    Args:
        projector: with a `TimedCost` and a bound on the latency.
        counts: (groups,) kept counts to start from.
        measure: kept counts -> `dense_ms`, `pruned_ms` and `noise`.
    """
    trials, told, limit = [_try(projector, counts, measure)], [], projector.budget.limits[LATENCY]
    while abs(trials[-1].off - 1) > LIMIT and len(trials) < TRIES:
        try:
            corrected = corrected_by(projector, limit / _next_bound(trials, limit))
        except UserError:
            break
        again = corrected.project(counts[None].astype(float))[0]
        if any((again == trial.counts).all() for trial in trials):
            break
        told.append(f"the plan takes {100 * trials[-1].off:.0f} % of the latency it may: the model is corrected")
        trials.append(_try(projector, again, measure))
    within = [trial for trial in trials if trial.off <= 1 + LIMIT]
    best = max(within, key=lambda trial: trial.off) if within else min(trials, key=lambda trial: trial.off)
    if best.measured["noise"]:
        told.append(f"this machine is too noisy to tell: {best.measured['noise']}")
    return Settled(best.counts, best.measured, _line(trials, limit), told, _warnings(best, projector, len(trials)))


def _try(projector: BudgetProjector, counts: np.ndarray, measure: Callable[[np.ndarray], Measured]) -> Trial:
    measured = measure(counts)
    return Trial(
        counts, float(projector.cost.ratios(counts)[-1]), share_of_allowed(measured, projector.budget), measured
    )


def _next_bound(trials: list[Trial], limit: float) -> float:
    """What the model should say of the next plan, as a share of the dense network's latency."""
    slow = min((trial for trial in trials if trial.off > 1), key=lambda trial: trial.foretold, default=None)
    fast = max((trial for trial in trials if trial.off <= 1), key=lambda trial: trial.foretold, default=None)
    if slow is None or fast is None or fast.foretold >= slow.foretold:
        last = trials[-1].foretold
        return float(np.clip(_line(trials[-2:], limit).said(limit), last / STRIDE, last * STRIDE))
    # As if the truth were a power of what the model says, but well between the two.
    way = float(np.clip(np.log(1 / fast.off) / np.log(slow.off / fast.off), 0.1, 0.9))
    return float(fast.foretold * (slow.foretold / fast.foretold) ** way)


def _line(trials: list[Trial], limit: float) -> Line:
    """Through the two trials that came nearest, or through one and nothing where there is no such line that rises."""
    near, *others = sorted(trials, key=lambda trial: abs(np.log(trial.off)))
    for other in others:
        run = near.foretold - other.foretold
        slope = (near.off - other.off) * limit / run if run else 0.0
        offset = near.off * limit - slope * near.foretold
        if slope > 0 and offset >= 0:
            return Line(offset, slope)
    return Line(0.0, near.off * limit / near.foretold)


def _warnings(best: Trial, projector: BudgetProjector, tries: int) -> list[str]:
    found = []
    if best.off > 1 + LIMIT:
        found.append(f"the fastest plan that was tried takes {100 * best.off - 100:.0f} % more than the budget")
    if best.off < 1 - FAR and not _is_held(best.counts, projector):
        found.append(
            f"the plan takes {100 * best.off:.0f} % of the latency it may: of {tries} that were measured none came "
            "nearer without taking more"
        )
    return found


def _is_held(counts: np.ndarray, projector: BudgetProjector) -> bool:
    """Whether a plan is as large as it may be by all other bounds."""
    others = {resource: limit for resource, limit in projector.budget.limits.items() if resource != LATENCY}
    alone = BudgetProjector(projector.cost, Budget(others), projector.round_to, projector.min_channels)
    return bool((alone.project(counts[None].astype(float))[0] == counts).all())


def corrected_by(projector: BudgetProjector, factor: float) -> BudgetProjector:
    """UserError if the budget is out of reach when everything takes `factor` times what the model says."""
    cost = cast(TimedCost, projector.cost).corrected(factor)
    return BudgetProjector(cost, projector.budget, projector.round_to, projector.min_channels)


def by_forecast(projector: BudgetProjector, counts: np.ndarray, measured: Measured) -> float:
    """How many times what the model says a plan takes."""
    latency = share_of_allowed(measured, projector.budget) * projector.budget.limits[LATENCY]
    return latency / float(projector.cost.ratios(counts)[-1])


def share_of_allowed(measured: Measured, budget: Budget) -> float:
    """How many times the latency of a budget a plan takes; a time is a time, a fraction one of the dense network's."""
    if budget.milliseconds:
        return float(measured["pruned_ms"] / budget.milliseconds)
    return float(measured["pruned_ms"] / measured["dense_ms"] / budget.limits[LATENCY])
