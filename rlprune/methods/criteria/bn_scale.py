"""Scale of batch normalisation (Liu et al., Network Slimming, 2017, arXiv 1708.06519)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from rlprune.errors import UserError
from rlprune.graph.structure import Graph
from rlprune.methods.criteria.base import Criterion, ScoringContext, sum_over_producers
from rlprune.utils.modules import NORMS


@dataclass(frozen=True)
class BatchNormScale(Criterion):
    """Sum over a group's batch norms of |γ|, each layer scaled to mean 1.

    Paper: Liu et al., Network Slimming, 2017, arXiv 1708.06519
    """

    needs: ClassVar[tuple[str, ...]] = ("batch norm",)

    def score(self, module: nn.Module, graph: Graph, context: ScoringContext) -> np.ndarray:
        """See `Criterion.score`; UserError where a group has no batch norm."""
        scales = {
            name: layer.weight.detach().float().abs().cpu().double().numpy()
            for name, layer in module.named_modules()
            if isinstance(layer, NORMS) and layer.weight is not None
        }
        for group in graph.groups:
            if not any(layer in scales for layer in group.producers):
                raise UserError(
                    f"criterion bn-scale does not apply: the channels of '{group.name}' pass no batch norm; "
                    "use l1, l2 or taylor"
                )
        return sum_over_producers(graph, scales)
