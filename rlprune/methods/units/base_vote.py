"""Which grouping of a layer's filters is taken: a vote of snapshots of its training (Zhong et al., 2022, section 3.2).

By how much a filter has changed in size since a snapshot says how early it was what it is. In a good grouping the
groups' sums of that are evenly spread, so that none holds all of the early ones.
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from rlprune.methods.units.base_grouping import Groups

MEAN = 0.5
"""What the rank of the mean gap counts beside that of the gaps' variance."""


def vote(final: np.ndarray, snapshots: Sequence[np.ndarray], candidates: Sequence[Groups]) -> int:
    """The place of the candidate that most snapshots prefer.

    Args:
        final: (filters, weights of each) of the trained layer.
        snapshots: the same in the order of the training.
        candidates: groupings of the filters.

    Returns:
        Of candidates with as many votes that with the longest uninterrupted run of them; then the first.
    """
    winners = [winner(magnitude_increase(final, then), candidates) for then in snapshots]
    votes = [(winners.count(place), _longest_run(winners, place)) for place in range(len(candidates))]
    return votes.index(max(votes))


def magnitude_increase(final: np.ndarray, then: np.ndarray) -> np.ndarray:
    """(filters,) sums over the weights of a filter of how much their absolute values have changed."""
    changed: np.ndarray = np.abs(np.abs(final) - np.abs(then)).sum(1)
    return changed


def winner(increase: np.ndarray, candidates: Sequence[Groups]) -> int:
    """The place of the candidate that one snapshot prefers.

    Args:
        increase: (filters,) from `magnitude_increase`.
        candidates: groupings of the filters.
    """
    gaps = [np.diff(np.sort([increase[list(group)].sum() for group in groups])) for groups in candidates]
    means, variances = (rankdata([statistic(gap) for gap in gaps]) for statistic in (np.mean, np.var))
    return int(np.argmin(MEAN * means + variances))


def _longest_run(winners: Sequence[int], place: int) -> int:
    """The most votes for a candidate in a row."""
    longest = run = 0
    for each in winners:
        run = run + 1 if each == place else 0
        longest = max(longest, run)
    return longest
