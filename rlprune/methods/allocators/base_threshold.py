"""One threshold on the scores of all channels, wherever they are."""

from collections.abc import Sequence

import numpy as np

from rlprune.cost.projection import BudgetProjector


def threshold_plan(pieces: Sequence[np.ndarray], projector: BudgetProjector) -> np.ndarray:
    """The plan of the lowest threshold that is inside the budget; what is left is filled up.

    Args:
        pieces: for every group (channels,) scores, at least 0; those below the threshold go.
        projector: cost and budget.

    Returns:
        (groups,) kept counts.
    """
    ranked = [np.sort(piece) for piece in pieces]
    thresholds = np.unique(np.concatenate([[0.0, np.inf], *ranked]))

    def plan(threshold: float) -> np.ndarray:
        # One at least: a wish of 0 would take out a residual block, which no threshold on channels says.
        kept = [max(len(values) - np.searchsorted(values, threshold), 1) for values in ranked]
        return projector.quantise(np.array(kept, dtype=float))

    # The lower the threshold, the more stays; above the last one only the minimum does, which always fits.
    low, high = 0, len(thresholds) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if projector.fits(plan(thresholds[middle])) else (middle + 1, high)
    return projector.fill(plan(thresholds[low])[None])[0]
