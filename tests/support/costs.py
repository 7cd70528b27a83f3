"""Costs that are known in closed form."""

from typing import Any

import numpy as np

from rlprune.cost.exact import Cost
from rlprune.latency.model import LatencyModel, with_latency


def chain(sizes: list[int], positions: list[int]) -> Cost:
    """A chain of 1x1 convolutions from 3 channels to 2 classes.

    MACs are the sum over layers of inputs x outputs x positions, parameters the same without positions.
    """
    groups = len(sizes)
    whole = np.array([*[0] * groups, 3, 2], dtype=float)
    per_channel = np.vstack([np.eye(groups), np.zeros((2, groups))])
    path = [groups, *range(groups), groups + 1]
    weights = np.array([[position, 1.0] for position in [*positions, 1]])
    counts = np.array([3, *sizes, 2], dtype=float)
    dense = (counts[:-1] * counts[1:]) @ weights
    return Cost(
        whole,
        per_channel,
        np.array(path[:-1]),
        np.array(path[1:]),
        weights,
        dense,
        np.array(sizes),
        np.ones(len(sizes), dtype=int),
    )


DENSE = 20.0


def timed(cost: Cost, scale: float = 1.0) -> Any:
    """The latency of a chain is `scale` * its share of the parameters."""
    whole, nothing = np.zeros(1), np.zeros(0, dtype=int)
    weights = np.array([0, 0, 1e6 * scale * DENSE / cost.dense[1], 0])
    latency = LatencyModel(
        whole,
        np.zeros((1, len(cost.sizes))),
        nothing,
        nothing,
        np.zeros((2, 0, 5)),
        np.zeros((0, 5, 5)),
        whole,
        weights,
    )
    return with_latency(cost, latency, DENSE)
