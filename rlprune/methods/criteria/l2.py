"""L2 norm of the filters (He et al., Soft Filter Pruning, 2018, arXiv 1808.06866)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from rlprune.graph.structure import Graph
from rlprune.methods.criteria.base import Criterion, ScoringContext, filter_norms


@dataclass(frozen=True)
class L2(Criterion):
    """Sum over a group's producing layers of ‖filter‖₂, each layer scaled to mean 1.

    Paper: He et al., Soft Filter Pruning, 2018, arXiv 1808.06866
    """

    needs: ClassVar[tuple[str, ...]] = ()

    def score(self, module: nn.Module, graph: Graph, context: ScoringContext) -> np.ndarray:
        """See `Criterion.score`."""
        return filter_norms(module, graph, 2)
