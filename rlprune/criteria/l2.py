"""L2 norm of the filters (He et al., Soft Filter Pruning, 2018, arXiv 1808.06866)."""

import numpy as np
from torch import Tensor, nn

from rlprune.criteria.l1 import filter_norms
from rlprune.graph import Graph


def score(module: nn.Module, graph: Graph, batch: tuple[Tensor, Tensor], seed: int) -> np.ndarray:
    """Sum over a group's producing layers of ‖filter‖₂, each layer scaled to mean 1."""
    return filter_norms(module, graph, 2)
