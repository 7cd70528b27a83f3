"""Network -> groups of coupled channels, with the index maps that slice every tensor of a group.

The coupling is traced by torch-pruning's dependency graph (Fang et al., DepGraph, 2023, arXiv 2301.12900). Its groups
are read once; afterwards every kept slice of every tensor follows from plain integer arrays.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from rlprune.errors import UserError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
WHOLE = -1
"""Marks an index of an axis that belongs to no group and always stays."""


@dataclass(frozen=True)
class Group:
    """Channels that live and die together; one decision of the agent.

    Attributes:
        name: the first layer that produces the channels.
        channels: how many there are in the dense network.
        start: position of the first channel in the list of all groups' channels.
        producers: layers whose outputs (or normalised features) are these channels.
        consumers: layers that read them.
    """

    name: str
    channels: int
    start: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]


@dataclass(frozen=True)
class Axis:
    """One prunable side of one layer.

    Attributes:
        layer: name of the module.
        side: ``"out"`` or ``"in"``.
        slots: (size,) position of every index in the list of all groups' channels, or `WHOLE`.
    """

    layer: str
    side: str
    slots: np.ndarray


@dataclass(frozen=True)
class TensorMap:
    """Which axis, if any, each dimension of a state-dict entry follows.

    Attributes:
        name: key in the state dict.
        axes: per dimension the index of an axis, or None where the dimension is never cut.
        shape: dense shape.
        parameter: False for buffers.
        positions: multiply-accumulates per weight and image; 0 where the tensor is not a conv or linear weight.
    """

    name: str
    axes: tuple[int | None, ...]
    shape: tuple[int, ...]
    parameter: bool
    positions: int


@dataclass(frozen=True)
class Graph:
    """Everything the rest needs to know of a network's structure; plain data.

    Attributes:
        groups: in the order in which the network computes them.
        axes: every prunable side of every layer.
        tensors: every parameter and buffer.
        layers: output positions (height x width, summed over calls) of every conv and linear layer that was called.
        refused: layer -> why its output channels are never cut.
    """

    groups: tuple[Group, ...]
    axes: tuple[Axis, ...]
    tensors: tuple[TensorMap, ...]
    layers: dict[str, int]
    refused: dict[str, str]

    @property
    def sizes(self) -> np.ndarray:
        """(groups,) dense channel counts."""
        return np.array([group.channels for group in self.groups], dtype=np.int64)


def build_graph(module: nn.Module, example: torch.Tensor) -> Graph:
    """Trace a network into its groups.

    Args:
        module: the dense network; it is left as it was.
        example: (1, C, H, W) one input, on the module's device.

    Raises:
        UserError: the network cannot be traced, or nothing in it can be pruned.
    """
    positions = _output_positions(module, example)
    cut, refused = _coupled(module, example, list(positions))
    if not cut:
        reasons = "; ".join(f"{layer}: {why}" for layer, why in list(refused.items())[:3])
        raise UserError(f"no channels of this network can be pruned ({reasons or 'it has no conv or linear layers'})")
    groups, axes = _number(cut, module)
    return Graph(groups, axes, tuple(_tensor_maps(module, axes, positions)), positions, refused)


def is_depthwise(layer: nn.Module) -> bool:
    """Whether every output channel of a convolution reads just its own input channel."""
    return isinstance(layer, CONVOLUTIONS) and layer.groups == layer.in_channels == layer.out_channels > 1


def _output_positions(module: nn.Module, example: torch.Tensor) -> dict[str, int]:
    """Output positions of every conv and linear layer, in the order of the first call."""
    positions: dict[str, int] = {}

    def hook(name: str) -> object:
        def record(layer: nn.Module, _: object, output: torch.Tensor) -> None:
            channels = layer.weight.shape[0]
            positions[name] = positions.get(name, 0) + output[0].numel() // channels

        return record

    kinds = (*CONVOLUTIONS, nn.Linear)
    handles = [
        layer.register_forward_hook(hook(name))  # type: ignore[arg-type]
        for name, layer in module.named_modules()
        if isinstance(layer, kinds)
    ]
    training = module.training
    try:
        with torch.no_grad():
            module.eval()(example)
    finally:
        module.train(training)
        for handle in handles:
            handle.remove()
    return positions


@dataclass
class _Coupled:
    """A torch-pruning group in plain numbers: for every (layer, side) its indices and the root channel of each."""

    channels: int
    sides: dict[tuple[str, str], tuple[list[int], list[int]]]


def _coupled(module: nn.Module, example: torch.Tensor, called: list[str]) -> tuple[list[_Coupled], dict[str, str]]:
    names = {layer: name for name, layer in module.named_modules()}
    order = {name: position for position, name in enumerate(called)}
    cut: list[tuple[int, _Coupled]] = []
    refused: dict[str, str] = {}
    for group in _traced_groups(module, example):
        producers = [names.get(item.dep.target.module, "") for item in group if _is_out(item)]
        first = min((name for name in producers if name in order), key=order.__getitem__, default=None)
        if first is None:
            continue
        reason = _why_not(group)
        if reason:
            refused[first] = reason
            continue
        channels = len(group[0].idxs)
        sides: dict[tuple[str, str], tuple[list[int], list[int]]] = {}
        for item in group:
            layer = item.dep.target.module
            if layer in names:
                side = "out" if _is_out(item) or isinstance(layer, NORMS) or is_depthwise(layer) else "in"
                sides.setdefault((names[layer], side), (list(item.idxs), list(item.root_idxs)))
        cut.append((order[first], _Coupled(channels, sides)))
    cut.sort(key=lambda entry: entry[0])
    return [entry for _, entry in cut], refused


def _traced_groups(module: nn.Module, example: torch.Tensor) -> Iterator:
    import torch_pruning as tp

    training = module.training
    grads = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    try:
        module.requires_grad_(True)
        with torch.enable_grad():
            traced = tp.DependencyGraph().build_dependency(module, example, verbose=False)
        yield from traced.get_all_groups(root_module_types=[*CONVOLUTIONS, nn.Linear])
    finally:
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(grads[name])
        module.train(training)


def _is_out(item: object) -> bool:
    return "out_channels" in item.dep.handler.__name__  # type: ignore[attr-defined]


def _why_not(group: object) -> str | None:
    """The reason why a traced group cannot be cut, or None."""
    from torch_pruning import ops

    channels = len(group[0].idxs)  # type: ignore[index]
    if channels < 2:
        return "it has a single channel"
    for item in group:  # type: ignore[attr-defined]
        node = item.dep.target
        layer = node.module
        if node.type == ops.OPTYPE.OUTPUT or (_is_out(item) and not node.outputs):
            return "its channels are the network's output"
        if node.type == ops.OPTYPE.PARAMETER:
            return "it is tied to a parameter outside a layer"
        if isinstance(layer, CONVOLUTIONS) and layer.groups > 1 and not is_depthwise(layer):
            return "it is tied to a grouped convolution"
        known = (*CONVOLUTIONS, *NORMS, nn.Linear)
        if any(True for _ in layer.parameters()) and not isinstance(layer, known):
            return f"it is tied to a {type(layer).__name__}, which is not supported"
        if isinstance(layer, known) and not _covers_evenly(item.root_idxs, channels):
            return f"its channels do not map evenly onto {node.name.split(' ')[0]}"
    return None


def _covers_evenly(roots: list[int], channels: int) -> bool:
    counts = np.bincount(np.asarray(roots), minlength=channels)
    return len(counts) == channels and bool((counts == counts[0]).all())


def _number(cut: list[_Coupled], module: nn.Module) -> tuple[tuple[Group, ...], tuple[Axis, ...]]:
    groups: list[Group] = []
    slots: dict[tuple[str, str], dict[int, int]] = {}
    start = 0
    for entry in cut:
        producers = tuple(layer for layer, side in entry.sides if side == "out")
        consumers = tuple(layer for layer, side in entry.sides if side == "in")
        groups.append(Group(producers[0], entry.channels, start, producers, consumers))
        for key, (indices, roots) in entry.sides.items():
            slots.setdefault(key, {}).update((i, start + root) for i, root in zip(indices, roots, strict=True))
        start += entry.channels
    axes = []
    for (layer, side), found in slots.items():
        weight = module.get_submodule(layer).weight
        array = np.full(weight.shape[0 if side == "out" else 1], WHOLE, dtype=np.int64)  # type: ignore[index,arg-type]
        array[list(found)] = list(found.values())
        axes.append(Axis(layer, side, array))
    return tuple(groups), tuple(axes)


def _tensor_maps(module: nn.Module, axes: tuple[Axis, ...], positions: dict[str, int]) -> Iterator[TensorMap]:
    index = {(axis.layer, axis.side): position for position, axis in enumerate(axes)}
    parameters = dict(module.named_parameters())
    for name, tensor in module.state_dict().items():
        layer, _, leaf = name.rpartition(".")
        follows: list[int | None] = [None] * tensor.dim()
        if tensor.dim():
            follows[0] = index.get((layer, "out"))
        if leaf == "weight" and tensor.dim() > 1 and not is_depthwise(module.get_submodule(layer)):
            follows[1] = index.get((layer, "in"))
        counted = positions.get(layer, 0) if leaf == "weight" else 0
        yield TensorMap(name, tuple(follows), tuple(tensor.shape), name in parameters, counted)
