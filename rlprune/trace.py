"""Network -> groups of coupled channels, with the index maps that slice every tensor of a group.

The network is traced once; afterwards every kept slice of every tensor follows from plain integer arrays.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import nn

from rlprune.coupling import KNOWN, Coupled, trace_coupling
from rlprune.errors import UserError
from rlprune.graph import WHOLE, Axis, Graph, Group, TensorMap
from rlprune.modules import NORMS, axis_size, evaluating, is_depthwise
from rlprune.verify import misread_groups

MISREAD = "its channels are mixed, or their number is fixed, in the network's code"


def build_graph(module: nn.Module, example: torch.Tensor) -> Graph:
    """Trace a network into its groups.

    Args:
        module: the dense network; it is left as it was.
        example: (1, C, H, W) one input, on the module's device.

    Raises:
        UserError: the network cannot be run or traced, or nothing in it can be pruned.
    """
    positions = _output_positions(module, example)
    cut, refused = trace_coupling(module, example, list(positions))
    graph = _assemble(module, cut, positions, refused)
    misread = misread_groups(module, graph, example) if cut else []
    if misread:
        cut = {first: coupled for first, coupled in cut.items() if first not in misread}
        graph = _assemble(module, cut, positions, refused | dict.fromkeys(misread, MISREAD))
    if not graph.groups:
        reasons = "; ".join(f"{layer}: {why}" for layer, why in list(graph.refused.items())[:3])
        raise UserError(f"no channels of this network can be pruned ({reasons or 'it has no conv or linear layers'})")
    return graph


def _output_positions(module: nn.Module, example: torch.Tensor) -> dict[str, int]:
    """Output positions of every conv, linear and batch-norm layer, in the order of the first call."""
    positions: dict[str, int] = {}

    def hook(name: str) -> Callable[[nn.Module, object, torch.Tensor], None]:
        def record(layer: nn.Module, _: object, output: torch.Tensor) -> None:
            positions[name] = positions.get(name, 0) + output[0].numel() // axis_size(layer, "out")

        return record

    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, KNOWN)}
    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        with evaluating(module), torch.no_grad():
            output = module(example)
    except RuntimeError as error:
        raise UserError(f"the network does not run on an image of shape {tuple(example.shape[1:])}: {error}") from error
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(output, torch.Tensor) or output.dim() != 2:
        what = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise UserError(f"the network must return one tensor (images, classes); for one image it returns {what}")
    return positions


def _assemble(
    module: nn.Module, cut: Mapping[str, Coupled], positions: Mapping[str, int], refused: dict[str, str]
) -> Graph:
    groups, axes = _number(cut, module)
    counted = {name: n for name, n in positions.items() if not isinstance(module.get_submodule(name), NORMS)}
    return Graph(groups, axes, tuple(_tensor_maps(module, axes, counted)), counted, refused)


def _number(cut: Mapping[str, Coupled], module: nn.Module) -> tuple[tuple[Group, ...], tuple[Axis, ...]]:
    """Give every channel of every group a place in one list."""
    groups: list[Group] = []
    slots: dict[tuple[str, str], np.ndarray] = {}
    start = 0
    for first, coupled in cut.items():
        producers = tuple(layer for layer, side in coupled.sides if side == "out")
        consumers = tuple(layer for layer, side in coupled.sides if side == "in")
        groups.append(Group(first, coupled.channels, start, producers, consumers))
        for (layer, side), (indices, roots) in coupled.sides.items():
            nothing = np.full(axis_size(module.get_submodule(layer), side), WHOLE, dtype=np.int64)
            slots.setdefault((layer, side), nothing)[indices] = start + np.array(roots)
        start += coupled.channels
    return tuple(groups), tuple(Axis(layer, side, found) for (layer, side), found in slots.items())


def _tensor_maps(module: nn.Module, axes: tuple[Axis, ...], positions: Mapping[str, int]) -> Iterator[TensorMap]:
    index = {(axis.layer, axis.side): position for position, axis in enumerate(axes)}
    parameters = dict(module.named_parameters())
    # A module may go by several names; axes know it by the first one.
    names = {part: name for name, part in module.named_modules()}
    for name, tensor in module.state_dict().items():
        owner, _, leaf = name.rpartition(".")
        part = module.get_submodule(owner)
        follows: list[int | None] = [None] * tensor.dim()
        if tensor.dim():
            follows[0] = index.get((names[part], "out"))
        if leaf == "weight" and tensor.dim() > 1 and not is_depthwise(part):
            follows[1] = index.get((names[part], "in"))
        counted = positions.get(owner, 0) if leaf == "weight" else 0
        yield TensorMap(name, tuple(follows), tuple(tensor.shape), name in parameters, counted)
