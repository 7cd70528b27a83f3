"""L1 norm of the filters (Li et al., Pruning Filters for Efficient ConvNets, 2017, arXiv 1608.08710)."""

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.criteria import filters, sum_over_producers
from rlprune.graph import Graph


def score(module: nn.Module, graph: Graph, batch: tuple[Tensor, Tensor], seed: int) -> np.ndarray:
    """Sum over a group's producing layers of ‖filter‖₁, each layer scaled to mean 1."""
    return filter_norms(module, graph, 1)


def filter_norms(module: nn.Module, graph: Graph, order: int) -> np.ndarray:
    """(all groups' channels,) norms of the given order of the filters that produce a channel."""
    rows = filters(graph, dict(module.named_parameters(remove_duplicate=False)))
    norms = {name: torch.linalg.vector_norm(row, order, dim=1).cpu().numpy() for name, row in rows.items()}
    return sum_over_producers(graph, norms)
