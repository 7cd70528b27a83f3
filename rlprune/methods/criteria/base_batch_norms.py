"""Batch norms that scale the channels of groups."""

import numpy as np
from torch import nn

from rlprune.errors import UserError
from rlprune.graph.structure import Graph
from rlprune.utils.modules import NORMS


def batch_norm_scales(module: nn.Module, graph: Graph, name: str) -> dict[str, np.ndarray]:
    """Batch norm -> (channels,) |γ|.

    Args:
        module: the network.
        graph: its structure.
        name: of the criterion, for errors.

    Raises:
        UserError: the channels of a group pass no batch norm with scales.
    """
    scales = {
        layer: part.weight.detach().float().abs().cpu().double().numpy()
        for layer, part in module.named_modules()
        if isinstance(part, NORMS) and part.weight is not None
    }
    for group in graph.groups:
        if not any(layer in scales for layer in group.producers):
            raise UserError(
                f"criterion {name} does not apply: the channels of '{group.name}' pass no batch norm; "
                "use l1, l2 or taylor"
            )
    return scales
