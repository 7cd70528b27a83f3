"""The shape of a gated network, and the MACs that run for each image."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlprune.cost.exact import Cost
from rlprune.gating.gate import Decide, inputs_of_layer
from rlprune.gating.masks import kept_count
from rlprune.gating.network import GatedNetwork

LEAST = 0.05
"""No layer runs with less of its channels, unless the even plan already does."""
CHUNK = 250
"""Images that are measured at once."""


@dataclass(frozen=True)
class Layout:
    """What the agent's networks are shaped by.

    Attributes:
        inputs, channels: (gates,) pooled features and channels of every gate.
        shares: (gates,) how much the MACs ratio rises with the keep ratio of one gate, all others at half.
        ratios, macs: (points,) keep ratios, the same for all gates, and the MACs ratios they lead to; rising.
    """

    inputs: tuple[int, ...]
    channels: tuple[int, ...]
    shares: np.ndarray
    ratios: np.ndarray
    macs: np.ndarray

    def even(self, budget: float | np.ndarray) -> np.ndarray:
        """The keep ratio, the same for all gates, that meets a budget of MACs; of the shape of the budget."""
        return np.interp(budget, self.macs, self.ratios)


def make_layout(gated: GatedNetwork, cost: Cost) -> Layout:
    """Measure a gated network's costs."""
    sizes, groups = cost.sizes.astype(float), [wire.group for wire in gated.wires]
    ratios = np.linspace(LEAST / 5, 1, 200)
    counts = np.tile(sizes, (len(ratios), 1))
    counts[:, groups] = kept_count(ratios[:, None], sizes[groups])
    half = sizes.copy()
    half[groups] /= 2
    more = np.tile(half, (len(groups), 1))
    more[np.arange(len(groups)), groups] = sizes[groups]
    shares = 2 * (cost.ratios(more)[:, 0] - cost.ratios(half)[0])
    inputs = tuple(inputs_of_layer(gated.network, wire.layer) for wire in gated.wires)
    channels = tuple(wire.stop - wire.start for wire in gated.wires)
    return Layout(inputs, channels, shares, ratios, cost.ratios(counts)[:, 0])


def macs_ratios(gated: GatedNetwork, decide: Decide, cost: Cost, images: Tensor) -> np.ndarray:
    """(images,) MACs that run for each image, relative to the dense network; both sides of every layer count.

    Args:
        gated: in eval mode.
        decide: how much runs.
        cost: of the dense network.
        images: (images, C, H, W).
    """
    ratios = []
    with torch.no_grad():
        for chunk in images.split(CHUNK):
            gated(chunk, decide)
            ratios.append(cost.ratios(gated.counts())[:, 0])
    return np.concatenate(ratios)
