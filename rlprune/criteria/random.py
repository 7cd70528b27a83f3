"""Random scores: the control that every other criterion must beat."""

import numpy as np
from torch import Tensor, nn

from rlprune.graph import Graph


def score(module: nn.Module, graph: Graph, batch: tuple[Tensor, Tensor], seed: int) -> np.ndarray:
    """Uniform random scores, the same for the same seed."""
    return np.random.default_rng(seed).random(int(graph.sizes.sum()))
