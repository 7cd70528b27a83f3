"""Whether the traced structure of a network is its true one.

Tracing goes by operations and can be misled: channels may be shuffled, joined with the input, or have their number
written into the code. Removing channels must be the same as letting nobody read them, which takes two forward passes
to see.
"""

import copy

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from rlprune.graph import WHOLE, Graph
from rlprune.modules import NORMS
from rlprune.pruner import prune

TOLERANCE = 1e-3
"""Relative to the largest output. Rounding is far below, and channels that are mistaken for one another far above."""


def misread_groups(module: nn.Module, graph: Graph, example: torch.Tensor) -> list[str]:
    """Names of the groups whose physical removal does something else than disconnecting them.

    Args:
        module: the dense network; left as it was.
        graph: what was traced.
        example: (1, C, H, W) one input.
    """
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(example.shape, generator=generator)
    trial = _with_random_weights(module, generator)
    rng = np.random.default_rng(0)
    halves = [rng.permutation(group.channels) < (group.channels + 1) // 2 for group in graph.groups]
    if _removal_disconnects(trial, graph, np.concatenate(halves), image):
        return []
    misread = []
    for group, half in zip(graph.groups, halves, strict=True):
        kept = np.ones(int(graph.sizes.sum()), dtype=bool)
        kept[group.start : group.start + group.channels] = half
        if not _removal_disconnects(trial, graph, kept, image):
            misread.append(group.name)
    return misread


def _with_random_weights(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """A copy in which no channel is dead: what is found must not depend on the weights that happen to be there."""
    trial = copy.deepcopy(module).cpu().float().eval()
    with torch.no_grad():
        for parameter in trial.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, (len(parameter) / parameter.numel()) ** 0.5, generator=generator)
            else:
                parameter.uniform_(0.5, 1.5, generator=generator)
    for layer in trial.modules():
        if isinstance(layer, NORMS):
            layer.reset_running_stats()
    return trial


@torch.no_grad()
def _removal_disconnects(module: nn.Module, graph: Graph, kept: np.ndarray, image: torch.Tensor) -> bool:
    disconnected = {}
    for axis in graph.axes:
        if axis.side == "in":
            weight = module.get_submodule(axis.layer).get_parameter("weight")
            read = torch.from_numpy((axis.slots == WHOLE) | kept[axis.slots])
            disconnected[f"{axis.layer}.weight"] = weight * read.view(1, -1, *[1] * (weight.dim() - 2))
    expected = functional_call(module, disconnected, image)
    try:
        given = prune(module, graph, kept)(image)
    # A network with its numbers of channels written into its code can fail in any way at all.
    except Exception:
        return False
    return bool((given - expected).abs().max() <= TOLERANCE * expected.abs().max())
