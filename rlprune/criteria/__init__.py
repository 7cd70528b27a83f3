"""Criteria score channels: *which* ones go. One criterion a file, found by name."""

from collections.abc import Callable, Mapping
from importlib import import_module

import numpy as np
from torch import Tensor, nn

from rlprune.errors import UserError, unknown
from rlprune.graph import Graph

CRITERIA = {"l1": "l1", "l2": "l2", "bn-scale": "bn_scale", "taylor": "taylor", "random": "random"}
Criterion = Callable[[nn.Module, Graph, tuple[Tensor, Tensor], int], np.ndarray]


def score_channels(
    name: str, module: nn.Module, graph: Graph, batch: tuple[Tensor, Tensor], seed: int = 0
) -> np.ndarray:
    """Score every channel of every group.

    Args:
        name: one of `CRITERIA`.
        module: the dense network in eval mode.
        graph: its structure.
        batch: (N, C, H, W) images and (N,) labels, for criteria that look at data.
        seed: for criteria that draw.

    Returns:
        (all groups' channels,) float64 scores; the highest of a group stay.

    Raises:
        UserError: unknown criterion, or one that does not apply to this network.
    """
    if name not in CRITERIA:
        raise unknown("criterion", name, CRITERIA)
    score: Criterion = import_module(f"rlprune.criteria.{CRITERIA[name]}").score
    return score(module, graph, batch, seed)


def filters(graph: Graph, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Layer -> (output channels, weights of each) for the conv and linear layers that produce channels of a group.

    Args:
        graph: structure of the network.
        weights: tensors of the shapes of its weights, by their names.
    """
    return {
        layer: weights[weight.name].detach().float().movedim(dim, 0).flatten(1)
        for layer, (weight, dim) in graph.weights.items()
    }


def sum_over_producers(graph: Graph, values: dict[str, np.ndarray]) -> np.ndarray:
    """Add up one number per output channel of every producing layer, each layer scaled to mean 1.

    The scaling lets layers that are tied by a residual sum speak with equal weight.

    Args:
        graph: structure of the network.
        values: layer -> (its output channels,) non-negative numbers.

    Returns:
        (all groups' channels,) sums.

    Raises:
        UserError: some of the numbers are not finite.
    """
    total = np.zeros(int(graph.sizes.sum()))
    for axis in graph.axes:
        if axis.side == "out" and axis.layer in values:
            value = values[axis.layer].astype(np.float64)
            if not np.isfinite(value).all():
                raise UserError(
                    f"the channels of '{axis.layer}' cannot be compared, the criterion gives them NaN or infinite "
                    "scores: its weights are too large, use a checkpoint from before it diverged"
                )
            mine = axis.slots >= 0
            np.add.at(total, axis.slots[mine], value[mine] / max(value.mean(), 1e-12))
    return total
