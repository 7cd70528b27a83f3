"""The structure of a network whose convolutions lose input slices: each layer is a group of its own.

The slices of a layer stand where otherwise the channels of a group stand: as many can stay in every group of its
filters, and no other layer notices. Costs, budgets, allocators and agents then work on their numbers as they do on
those of channels.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from rlprune.graph.structure import WHOLE, Axis, Graph, Group, TensorMap


def kernel_structure(graph: Graph, inputs: Mapping[str, int], refused: Mapping[str, str]) -> Graph:
    """The structure of a network for cuts of kernels.

    Args:
        graph: its structure for cuts of channels.
        inputs: convolution -> its input slices, in the order in which the network computes them.
        refused: layer -> why its kernels stay whole.

    Returns:
        A structure in which the channels of a group are the input slices of the layer it is called after; the side of
        the layer that holds them is called its ``"out"`` one, as for layers that make the channels of a group. What
        is called a consumer reads what the layer makes.
    """
    groups, axes, start = list[Group](), list[Axis](), 0
    for layer, size in inputs.items():
        slots = np.arange(start, start + size)
        groups.append(Group(layer, size, start, (layer,), _readers(graph, layer, inputs)))
        # The first one is cut; by the second the activations of the inputs are looked at.
        axes += [Axis(layer, "out", slots), Axis(layer, "in", slots)]
        start += size
    place = {f"{layer}.weight": 2 * number for number, layer in enumerate(inputs)}

    def mapped(tensor: TensorMap) -> TensorMap:
        along: list[int | None] = [None] * len(tensor.shape)
        if tensor.name in place:
            along[1] = place[tensor.name]
        return replace(tensor, axes=tuple(along))

    return Graph(
        tuple(groups),
        tuple(axes),
        tuple(map(mapped, graph.tensors)),
        tuple(replace(product, slots=np.full_like(product.slots, WHOLE)) for product in graph.products),
        graph.layers,
        dict(refused),
    )


def _readers(graph: Graph, layer: str, inputs: Mapping[str, int]) -> tuple[str, ...]:
    """The layers whose kernels can be cut and that come after a layer and read what it makes."""
    read = {name for group in graph.groups if layer in group.producers for name in group.consumers}
    later = list(inputs)[list(inputs).index(layer) + 1 :]
    return tuple(name for name in later if name in read)
