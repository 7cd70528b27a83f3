"""Scale of batch normalisation (Liu et al., Network Slimming, 2017, arXiv 1708.06519)."""

import numpy as np
from torch import Tensor, nn

from rlprune.criteria import sum_over_producers
from rlprune.errors import UserError
from rlprune.graph import Graph
from rlprune.modules import NORMS


def score(module: nn.Module, graph: Graph, batch: tuple[Tensor, Tensor], seed: int) -> np.ndarray:
    """Sum over a group's batch norms of |γ|, each layer scaled to mean 1.

    Raises:
        UserError: a group has no batch norm.
    """
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
