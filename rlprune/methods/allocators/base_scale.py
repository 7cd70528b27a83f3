"""Rules with one scale, which is found by bisection."""

from collections.abc import Callable

import numpy as np

from rlprune.cost.projection import BudgetProjector

HALVINGS = 50
"""Of the interval in which the scale is looked for; the plan does not change any more long before."""


def largest_plan(
    projector: BudgetProjector, wished: Callable[[float], np.ndarray], low: float, high: float
) -> np.ndarray:
    """The plan of a rule with one scale that is largest inside the budget; what is left is filled up.

    Args:
        projector: cost and budget.
        wished: scale -> (groups,) wished counts, which never fall as it rises.
        low, high: between which it is. Where not even the lowest fits, its plan is made smaller in proportion.

    Returns:
        (groups,) kept counts.
    """

    def fits(scale: float) -> bool:
        return bool(projector.fits(projector.quantise(wished(scale))))

    if not fits(low):
        return projector.project(wished(low)[None])[0]
    low = high if fits(high) else low
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return projector.fill(projector.quantise(wished(low))[None])[0]
