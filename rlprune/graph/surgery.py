"""Kept channels -> a really smaller network: one slicing serves evaluation and physical pruning alike."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.graph.removal import take_out
from rlprune.graph.structure import WHOLE, Graph
from rlprune.utils.modules import (
    CONVOLUTIONS,
    INSTANCE_NORMS,
    NORMS,
    TRANSPOSED,
    copy_sharing_weights,
    cuts_whole_groups,
    evaluating,
    named_tensors,
    opaque,
    unwrapped,
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
        followed = {graph.axes[axis].layer for tensor in graph.tensors for axis in tensor.axes if axis is not None}
        self._bare = [axis for axis in graph.axes if axis.side == "out" and axis.layer not in followed]

    def slices(self, kept: np.ndarray) -> dict[str, Tensor]:
        """The kept part of every tensor, without those of blocks that are taken out.

        Args:
            kept: (all groups' channels,) bool, True where a channel stays.

        Raises:
            UserError: a group keeps no channel and its block is not taken out.
        """
        out = self.graph.taken_out(self.graph.counts_of(kept))
        # One entry more, always True, is what index -1 (WHOLE) of an axis points at.
        stays = np.append(kept, True)
        assert WHOLE == -1
        indices = [self._indices(stays[axis.slots]) for axis in self.graph.axes]
        cut: dict[str, Tensor] = {}
        for tensor in self.graph.tensors:
            if any(block.holds(tensor.name) for block in out):
                continue
            value = self.state[tensor.name]
            for dim, axis in enumerate(tensor.axes):
                if axis is not None and (index := indices[axis]) is not None:
                    value = _select(value, dim, index)
            cut[tensor.name] = value
        return cut

    def features(self, kept: np.ndarray) -> dict[str, int]:
        """How many channels are left where no tensor tells: layer -> number, for norms without parameters.

        Args:
            kept: (all groups' channels,) bool, True where a channel stays.
        """
        stays, out = np.append(kept, True), self.graph.taken_out(self.graph.counts_of(kept))
        bare = [axis for axis in self._bare if not any(block.holds(axis.layer) for block in out)]
        return {axis.layer: int(stays[axis.slots].sum()) for axis in bare}

    def _indices(self, stays: np.ndarray) -> Tensor | None:
        if stays.all():
            return None
        device = next(iter(self.state.values())).device
        return torch.from_numpy(np.flatnonzero(stays)).to(device)


def _select(value: Tensor, dim: int, index: Tensor) -> Tensor:
    """`index_select` that leaves a tensor channels last, or every forward pass would convert the slices again."""
    if value.dim() == 4 and not value.is_contiguous() and value.is_contiguous(memory_format=torch.channels_last):
        return value.permute(0, 2, 3, 1).index_select((0, 3, 1, 2)[dim], index).permute(0, 3, 1, 2)
    return value.index_select(dim, index)


def install(
    module: nn.Module,
    dense: nn.Module,
    tensors: Mapping[str, Tensor],
    trainable: bool = False,
    features: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Put tensors of other sizes into a module and make its layers' attributes agree.

    Args:
        module: a network of the dense architecture; changed in place.
        dense: the dense network, or the module itself while it is still dense.
        tensors: parameters and buffers by name, sliced.
        trainable: copy the tensors into parameters of their own, of which those can be trained that could be before;
            otherwise the module only borrows them.
        features: channels of layers without tensors.
    """
    # Asked before anything changes: a depthwise convolution with one channel left is like any other.
    widths = {name: width for name, layer in dense.named_modules() if (width := _group_width(layer))}
    shared: dict[int, nn.Parameter] = {}
    for name, tensor in tensors.items():
        owner, _, leaf = name.rpartition(".")
        layer = module.get_submodule(owner)
        if opaque(layer):
            # Its tensors are its own, in a copy too.
            if trainable:
                getattr(layer, leaf).data.copy_(tensor)
        elif leaf in layer._buffers:
            layer._buffers[leaf] = tensor.clone() if trainable else tensor
        else:
            # Layers that share a parameter go on sharing it.
            before = layer.get_parameter(leaf)
            if id(before) not in shared:
                learns = trainable and before.requires_grad
                shared[id(before)] = nn.Parameter(tensor.clone() if trainable else tensor, requires_grad=learns)
            layer._parameters[leaf] = shared[id(before)]
    for name, number in features.items():
        module.get_submodule(name).num_features = number  # type: ignore[assignment]
    for name, layer in module.named_modules():
        _agree(layer, widths.get(name, 0))


def count_features(module: nn.Module, images: Tensor) -> None:
    """Make norms without tensors say how many channels they get.

    Args:
        module: a network that is cut; run once, if it has such norms.
        images: an example of its input.
    """
    bare = [layer for layer in module.modules() if isinstance(layer, INSTANCE_NORMS) and not named_tensors(layer)]
    hooks = [layer.register_forward_pre_hook(_count) for layer in bare]
    if bare:
        with evaluating(module), torch.inference_mode():
            module(images)
    for hook in hooks:
        hook.remove()


def _count(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    layer.num_features = inputs[0].shape[1]  # type: ignore[assignment]


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
    elif isinstance(layer, (nn.Embedding, nn.EmbeddingBag)):
        layer.num_embeddings, layer.embedding_dim = layer.weight.shape
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, CONVOLUTIONS):
        layer.groups = len(layer.weight) // width if width else layer.groups
        layer.out_channels, layer.in_channels = layer.weight.shape[0], layer.weight.shape[1] * layer.groups
    elif isinstance(layer, TRANSPOSED):
        layer.in_channels, layer.out_channels = layer.weight.shape[0], layer.weight.shape[1] * layer.groups
    # People's own layer norms call it the same.
    elif hasattr(layer, "normalized_shape") and isinstance(weight := getattr(layer, "weight", None), Tensor):
        setattr(layer, "normalized_shape", tuple(weight.shape))  # noqa: B010  (a module may have anything)
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
        A module of the same class with ordinary, smaller layers, and what remains in the place of blocks none of whose
        inner groups keeps a channel.

    Raises:
        UserError: another group keeps none.
    """
    module = unwrapped(module)
    smaller = copy_sharing_weights(module)
    take_out(smaller, graph.taken_out(graph.counts_of(kept)))
    slicer = Slicer(graph, named_tensors(module))
    install(smaller, module, slicer.slices(kept), trainable=True, features=slicer.features(kept))
    return smaller
