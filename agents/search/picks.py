"""Which of many imagined plans are measured next: promising ones that differ."""

import numpy as np
from scipy.spatial.distance import cdist

from rlprune.agents.search.archive import PlanArchive

OPTIMISM = 1.5
"""Doubts by which the last plan of a batch is taken to be better than forecast; the first one is taken as forecast."""
TWINS = 0.05
"""Root mean square difference of the log keep ratios up to which two plans are twins."""
OUT = 0.05
"""Channels that stand for none: a plan without a block is no twin of one with little of it."""


def batch(archive: PlanArchive, plans: np.ndarray, number: int) -> list[np.ndarray]:
    """The plans of a batch: the best by more and more optimistic forecasts.

    A twin of a plan that is known, or that will be, tells next to nothing that this one does not: none is taken while
    there are others.

    Args:
        archive: of the plans that are known.
        plans: (plans, groups) kept counts of others, each once; one at least.
        number: so many at most.
    """
    groups = len(archive.spec.base)
    if archive.counts:
        new = ~are_twins(plans, np.array(archive.counts), groups).any(axis=1)
        plans = plans[new] if new.any() else plans
    mean, doubt = archive.model.predict(plans, archive.budget)
    taken, near = np.zeros((2, len(plans)), dtype=bool)
    picks: list[int] = []
    for optimism in np.linspace(0, OPTIMISM, min(number, len(plans))):
        values = archive.spec.value(plans, mean - optimism * doubt)
        values[taken if near.all() else near] = -np.inf
        picks.append(int(np.argmax(values)))
        taken[picks[-1]] = True
        near |= are_twins(plans, plans[picks[-1:]], groups)[:, 0]
    return [plans[pick] for pick in picks]


def are_twins(plans: np.ndarray, others: np.ndarray, groups: int) -> np.ndarray:
    """(plans, others) whether plans are all but others.

    Args:
        plans, others: (plans, groups + columns) and (others, groups + columns); plans that differ in a column are none.
        groups: of the network.
    """
    logs = [np.log(np.maximum(some[:, :groups], OUT)) for some in (plans, others)]
    twins: np.ndarray = cdist(*logs) <= TWINS * np.sqrt(groups)
    if plans.shape[1] > groups:
        twins &= cdist(plans[:, groups:], others[:, groups:], "chebyshev") == 0
    return twins
