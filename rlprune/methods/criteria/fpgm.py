"""Distance to the geometric median (He et al., FPGM, 2019, arXiv 1811.00250)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.graph.structure import Graph
from rlprune.methods.criteria.base import Criterion, ScoringContext, filters_of, sum_over_producers


@dataclass(frozen=True)
class GeometricMedian(Criterion):
    """Sum over a group's producing layers of a filter's distances to all others of its layer, each scaled to mean 1.

    A grouped layer is the dense one that computes the same: its filters are zero wherever they read nothing.

    Paper: He et al., Filter Pruning via Geometric Median, 2019, arXiv 1811.00250

    Claim: ResNet-56 on CIFAR-10 with 52.6 % fewer MACs has 93.49 instead of 93.59 %, fine-tuned.
    """

    needs: ClassVar[tuple[str, ...]] = ()

    def score(self, module: nn.Module, graph: Graph, context: ScoringContext) -> np.ndarray:
        """See `Criterion.score`."""
        layers = dict(module.named_modules())
        distances = {
            # What is no layer is a parameter of its own.
            layer: _distances(rows, getattr(layers.get(layer), "groups", 1)).sum(1).numpy()
            for layer, rows in filters_of(module, graph).items()
        }
        return sum_over_producers(graph, distances)


def _distances(rows: Tensor, groups: int) -> Tensor:
    """(channels, channels) distances of (channels, weights of each) filters of a layer with so many groups."""
    # By matrix products, which are fast, and in float64 around the mean, where they cancel next to nothing.
    rows = rows.cpu().double()
    centred = rows - rows.mean(0)
    within = torch.cdist(centred, centred)
    squares = rows.square().sum(1)
    number = torch.arange(len(rows)) // (len(rows) // groups)
    return torch.where(number[:, None] == number, within, (squares[:, None] + squares).sqrt())
