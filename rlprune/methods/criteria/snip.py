"""Connection sensitivity (Lee et al., SNIP, 2019, arXiv 1810.02340)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from rlprune.graph.structure import Graph
from rlprune.methods.criteria.base import Criterion, ScoringContext, sum_over_producers
from rlprune.methods.criteria.base_gradients import first_order, sum_over_images


@dataclass(frozen=True)
class Snip(Criterion):
    """Sum over all weights that make a channel of |w g|, the sensitivity of the loss to a mask of the weight.

    Nothing is scaled: all channels of the network can be compared.

    Paper: Lee, Ajanthan & Torr, SNIP: Single-shot Network Pruning, 2019, arXiv 1810.02340

    Claim: LeNets with 98 to 99 % of their weights gone before any training lose little.
    """

    needs: ClassVar[tuple[str, ...]] = ("labels", "gradients")

    def score(self, module: nn.Module, graph: Graph, context: ScoringContext) -> np.ndarray:
        """See `Criterion.score`."""
        products = sum_over_images(module, graph, context, first_order(context.task, len(context.images)))
        sensitivities = {layer: rows.abs().sum(1).cpu().numpy() for layer, rows in products.items()}
        return sum_over_producers(graph, sensitivities, scaled=False)
