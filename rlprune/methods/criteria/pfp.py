"""Greatest relative contribution (Liebenwein et al., Provable Filter Pruning, 2020, arXiv 1911.07412)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.errors import UserError
from rlprune.graph.structure import Graph
from rlprune.methods.criteria.base import Criterion, ScoringContext
from rlprune.methods.criteria.base_gradients import chunks
from rlprune.methods.criteria.base_patches import kernels, patches
from rlprune.methods.criteria.base_reads import watching
from rlprune.utils.modules import evaluating

BLOCK = 2**18
"""Products that are made at a time: they stay in a processor's cache."""
LEAST = 1e-30
"""Sums below this are taken for zero."""


@dataclass(frozen=True)
class ProvableFilterPruning(Criterion):
    """Greatest share of a channel in what a layer that reads it adds up, in [0, 1].

    The greatest over images, filters, positions of a filter on the image, and weights of its kernel: |w a| of the
    channel over the sum of |w a| of all channels whose w a has the same signs of w and a. Depthwise layers add up
    nothing, and do not count.

    Paper: Liebenwein et al., Provable Filter Pruning for Efficient Neural Networks, 2020, arXiv 1911.07412

    Attributes:
        positions: of a filter that are looked at on every image, drawn at random for each layer; 0 is all of them.
    """

    needs: ClassVar[tuple[str, ...]] = ("images",)
    positions: int = 4

    def __post_init__(self) -> None:
        """Raise UserError unless that can be drawn."""
        if self.positions < 0:
            raise UserError(f"criterion pfp:positions={self.positions}: expected 0, which is all, or more, such as 4")

    def score(self, module: nn.Module, graph: Graph, context: ScoringContext) -> np.ndarray:
        """See `Criterion.score`; UserError where no layer reads the channels of a group."""
        scores = np.zeros(int(graph.sizes.sum()))
        drawn = torch.Generator().manual_seed(context.seed)

        def look(layer: nn.Module, features: Tensor, slots: np.ndarray) -> None:
            shares = _shares(layer, features.detach().float(), self.positions, drawn)
            mine = slots >= 0
            np.maximum.at(scores, slots[mine], shares.cpu().double().numpy()[mine])

        with watching(module, graph, look, "pfp"), evaluating(module), torch.inference_mode():
            for chunk in chunks(context.images):
                module(context.images[chunk])
        return scores


def _shares(layer: nn.Module, features: Tensor, positions: int, drawn: torch.Generator) -> Tensor:
    """(inputs,) greatest share of each input of a layer."""
    weights, seen = kernels(layer), patches(layer, features, positions, drawn)
    seen = seen.expand(-1, -1, weights.shape[3], -1)
    groups = [
        torch.stack([_greatest(weight, patch) for weight, patch in zip(*kernel, strict=True)]).amax(0)
        for kernel in zip(weights.movedim(3, 1), seen.movedim(2, 1), strict=True)
    ]
    return torch.cat(groups)


def _greatest(weights: Tensor, inputs: Tensor) -> Tensor:
    """(inputs,) greatest share of each in the sums that (outputs, inputs) weights make of (inputs, patches)."""
    best = inputs.new_zeros(len(inputs))
    for one in (weights.clamp(min=0), (-weights).clamp(min=0)):
        for other in (inputs.clamp(min=0), (-inputs).clamp(min=0)):
            if one.any() and other.any():
                best = torch.maximum(best, _greatest_of_positive(one, other))
    return best


def _greatest_of_positive(weights: Tensor, inputs: Tensor) -> Tensor:
    """The same where nothing is negative."""
    sums = weights @ inputs
    inverse = torch.where(sums > LEAST, 1 / sums, 0)
    rows = max(1, BLOCK // inputs.numel())
    products = inputs.new_empty(min(rows, len(weights)), *inputs.shape)
    best = inputs.new_zeros(len(inputs))
    for some, row in zip(weights.split(rows), inverse.split(rows), strict=True):
        mine = products[: len(some)]
        torch.mul(inputs, row[:, None], out=mine)
        best = torch.maximum(best, (some * mine.amax(2)).amax(0))
    return best.clamp(max=1)
