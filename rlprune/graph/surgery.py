"""Kept channels -> a really smaller network: one slicing serves evaluation and physical pruning alike."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.graph.structure import WHOLE, Graph
from rlprune.utils.modules import (
    CONVOLUTIONS,
    INSTANCE_NORMS,
    NORMS,
    TRANSPOSED,
    copy_sharing_weights,
    cuts_whole_groups,
    named_tensors,
)


class Slicer:
    """Cuts the kept slices out of a network's tensors.

    Args:
        graph: structure of the dense network.
        state: dense parameters and buffers by name; the slices live on the same device.
    """

    def __init__(self, graph: Graph, state: Mapping[str, Tensor]) -> None:
        self.graph = graph
        self.state = {name: tensor.detach() for name, tensor in state.items()}

    def slices(self, kept: np.ndarray) -> dict[str, Tensor]:
        """The kept part of every tensor.

        Args:
            kept: (all groups' channels,) bool, True where a channel stays.
        """
        # One entry more, always True, is what index -1 (WHOLE) of an axis points at.
        stays = np.append(kept, True)
        assert WHOLE == -1
        indices = [self._indices(stays[axis.slots]) for axis in self.graph.axes]
        cut: dict[str, Tensor] = {}
        for tensor in self.graph.tensors:
            value = self.state[tensor.name]
            for dim, axis in enumerate(tensor.axes):
                if axis is not None and (index := indices[axis]) is not None:
                    value = value.index_select(dim, index)
            cut[tensor.name] = value
        return cut

    def _indices(self, stays: np.ndarray) -> Tensor | None:
        if stays.all():
            return None
        device = next(iter(self.state.values())).device
        return torch.from_numpy(np.flatnonzero(stays)).to(device)


def install(module: nn.Module, dense: nn.Module, tensors: Mapping[str, Tensor], trainable: bool = False) -> None:
    """Put tensors of other sizes into a module and make its layers' attributes agree.

    Args:
        module: a network of the dense architecture; changed in place.
        dense: the dense network, or the module itself while it is still dense.
        tensors: parameters and buffers by name, sliced.
        trainable: copy the tensors into parameters of their own; otherwise the module only borrows them.
    """
    # Asked before anything changes: a depthwise convolution with one channel left is like any other.
    widths = {name: width for name, layer in dense.named_modules() if (width := _group_width(layer))}
    shared: dict[int, nn.Parameter] = {}
    for name, tensor in tensors.items():
        owner, _, leaf = name.rpartition(".")
        layer = module.get_submodule(owner)
        if leaf in layer._buffers:
            layer._buffers[leaf] = tensor.clone() if trainable else tensor
        else:
            # Layers that share a parameter go on sharing it.
            known = id(layer._parameters[leaf])
            if known not in shared:
                shared[known] = nn.Parameter(tensor.clone() if trainable else tensor, requires_grad=trainable)
            layer._parameters[leaf] = shared[known]
    for name, layer in module.named_modules():
        _agree(layer, widths.get(name, 0))


def _group_width(layer: nn.Module) -> int:
    """Output channels that go with each group of a layer that loses whole groups; 0 for any other layer."""
    if isinstance(layer, CONVOLUTIONS) and cuts_whole_groups(layer.groups, layer.in_channels):
        return layer.out_channels // layer.groups
    if isinstance(layer, nn.GroupNorm) and cuts_whole_groups(layer.num_groups, layer.num_channels):
        return layer.num_channels // layer.num_groups
    return 0


def _agree(layer: nn.Module, width: int) -> None:
    """Set a layer's attributes by its tensors."""
    if isinstance(layer, (*NORMS, *INSTANCE_NORMS)):
        known = layer.weight if layer.running_mean is None else layer.running_mean
        layer.num_features = layer.num_features if known is None else len(known)
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, CONVOLUTIONS):
        layer.groups = len(layer.weight) // width if width else layer.groups
        layer.out_channels, layer.in_channels = layer.weight.shape[0], layer.weight.shape[1] * layer.groups
    elif isinstance(layer, TRANSPOSED):
        layer.in_channels, layer.out_channels = layer.weight.shape[0], layer.weight.shape[1] * layer.groups
    elif isinstance(layer, (nn.LayerNorm, nn.RMSNorm)) and layer.weight is not None:
        layer.normalized_shape = tuple(layer.weight.shape)
    elif isinstance(layer, nn.GroupNorm) and layer.weight is not None:
        layer.num_channels = len(layer.weight)
        layer.num_groups = layer.num_channels // width if width else layer.num_groups
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = len(layer.weight)


def prune(module: nn.Module, graph: Graph, kept: np.ndarray) -> nn.Module:
    """A physically smaller copy of a network.

    Args:
        module: the dense network; left as it was.
        graph: its structure.
        kept: (all groups' channels,) bool, True where a channel stays.

    Returns:
        A module of the same class with ordinary, smaller layers.
    """
    smaller = copy_sharing_weights(module)
    install(smaller, module, Slicer(graph, named_tensors(module)).slices(kept), trainable=True)
    return smaller
