"""Whether what no channel can save takes most of the time that a budget allows, and what helps then.

Every call takes its time however few channels there are. Where that is most of what is allowed, what remains is for a
plan with next to no channels: the budget is met, but nobody would want it.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from rlprune.cost.budget import LATENCY, Budget
from rlprune.cost.projection import BudgetProjector
from rlprune.errors import UserError
from rlprune.latency.backends import Backend

MOST = 0.5
"""Share of the allowed time from which on overhead is called the reason."""
LEAST = 0.25
"""Share of the MACs that a plan should keep at least, relative to the share of the time that it may take."""
SENSIBLE = 0.5
"""The same for the plan that is named as one to ask for."""
WORTH = 0.95
"""A latency above this is nothing to ask for."""


@dataclass(frozen=True)
class Line:
    """What is measured of what a model says, both as shares of the dense network's time: offset + slope * said."""

    offset: float = 0.0
    slope: float = 1.0

    def measured(self, said: float) -> float:
        """What is measured where the model says so much."""
        return self.offset + self.slope * said

    def said(self, measured: float) -> float:
        """What the model says where so much is measured; below 0 where it never is."""
        return (measured - self.offset) / self.slope


EXACT = Line()


@dataclass(frozen=True)
class Overhead:
    """What the time of a network is made of under a budget; all are shares of the dense network's.

    Attributes:
        least: time of the smallest plan.
        allowed: time that the budget allows.
        kept: MACs of the largest plan of even ratios within it.
    """

    least: float
    allowed: float
    kept: float


def find_overhead(projector: BudgetProjector, line: Line = EXACT) -> Overhead | None:
    """The overhead where it bounds a budget; None where it does not, or where latency is not bounded.

    Args:
        projector: with a cost that knows the latency, if the budget bounds it.
        line: how far the model is from what was measured.
    """
    allowed = projector.budget.limits.get(LATENCY)
    if allowed is None:
        return None
    smallest = projector.cost.ratios(projector.minimum)
    least = line.measured(float(smallest[-1]))
    if least < MOST * allowed:
        return None
    # No plan is smaller than the smallest, which may well take a little more than is allowed.
    kept = float(_even(projector, LATENCY, max(line.said(allowed), float(smallest[-1])))[0])
    return None if kept >= LEAST * allowed else Overhead(least, allowed, kept)


def overhead_words(
    found: Overhead, projector: BudgetProjector, backend: Backend, line: Line = EXACT, more: Sequence[str] = ()
) -> str:
    """What bounds the budget, and what to ask for instead.

    Args:
        found: the overhead.
        projector, line: where it was found.
        backend: how the network is run.
        more: what helps besides.
    """
    return (
        f"overhead bounds {projector.budget}: with the fewest channels the network still takes {_percent(found.least)} "
        f"of the dense one's time, of {_percent(found.allowed)} allowed, so that even ratios keep "
        f"{_percent(found.kept)} of the MACs; {what_helps(projector, projector.budget, backend, line, more)}"
    )


def what_helps(
    projector: BudgetProjector, budget: Budget, backend: Backend, line: Line = EXACT, more: Sequence[str] = ()
) -> str:
    """What to ask for instead of a latency that takes all channels, or more.

    Args:
        projector: of any budget, for its cost and its rounding.
        budget: that bounds the latency.
        backend: how the network is run.
        line: how far the model is from what was measured.
        more: what helps besides.
    """
    macs = SENSIBLE * budget.limits[LATENCY]
    helps = [
        *more,
        f"more images at once than {backend.batch} (--batch)",
        f"another backend than {backend.name} (--backend)",
        "a network with fewer layers",
        f"a budget of MACs such as macs={macs:.2g}",
    ]
    # Where so few MACs are out of reach, no plan can be named.
    with suppress(UserError):
        kept = _even(projector, "macs", macs)
        time = line.measured(float(kept[-1]))
        if budget.limits[LATENCY] < time <= WORTH:
            helps.insert(0, f"{_latency(time, projector, budget)}, which keeps about {_percent(kept[0])}")
    return f"what helps: {', '.join(helps)}"


def _latency(share: float, projector: BudgetProjector, budget: Budget) -> str:
    """A budget of so much of the dense network's time, written as the one that was given."""
    if budget.milliseconds is not None:
        return f"latency={share * projector.cost.dense[-1]:.3g}ms"
    return f"latency={np.ceil(100 * share) / 100:.2f}"


def _even(projector: BudgetProjector, resource: str, limit: float) -> np.ndarray:
    """(resources,) shares that the largest plan of even ratios keeps under one bound alone."""
    alone = BudgetProjector(projector.cost, Budget({resource: limit}), projector.round_to, projector.min_channels)
    ratios: np.ndarray = alone.cost.ratios(alone.project(alone.sizes[None].astype(float)))[0]
    return ratios


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"
