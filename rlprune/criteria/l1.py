"""L1 norm of the filters (Li et al., Pruning Filters for Efficient ConvNets, 2017, arXiv 1608.08710)."""

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.criteria import sum_over_producers, weighted
from rlprune.graph import Graph


def score(module: nn.Module, graph: Graph, batch: tuple[Tensor, Tensor], seed: int) -> np.ndarray:
    """Sum over a group's producing layers of ‖filter‖₁, each layer scaled to mean 1."""
    return filter_norms(module, graph, 1)


def filter_norms(module: nn.Module, graph: Graph, order: int) -> np.ndarray:
    """(all groups' channels,) norms of the given order of the filters that produce a channel."""
    filters = {name: module.get_parameter(f"{name}.weight").detach().float().flatten(1) for name in weighted(graph)}
    norms = {name: torch.linalg.vector_norm(rows, order, dim=1).cpu().numpy() for name, rows in filters.items()}
    return sum_over_producers(graph, norms)
