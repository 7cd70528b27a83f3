"""The structure of a network: groups of coupled channels, and the index maps that slice every tensor of a group."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

WHOLE = -1
"""Marks an index of an axis that belongs to no group and always stays."""


@dataclass(frozen=True)
class Group:
    """Channels that live and die together; one decision of the agent.

    Attributes:
        name: the first layer that produces just these channels; with ``#1`` and so on where no layer does.
        channels: how many there are in the dense network; where several of a layer's can only go together, each such
            bundle counts as one.
        start: position of the first channel in the list of all groups' channels.
        producers: layers whose outputs (or normalised features) are these channels.
        consumers: layers that read them.
        width: output channels of the first layer in each; more than 1 where they are bundled.
        ties: the operations in which its producers meet, such as ``sum in layer1.0``.
    """

    name: str
    channels: int
    start: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    width: int = 1
    ties: tuple[str, ...] = ()


@dataclass(frozen=True)
class Axis:
    """One prunable side of one layer.

    Attributes:
        layer: name of the module.
        side: ``"out"``, ``"in"``, or ``"fold"`` for the inputs of each group of a grouped convolution.
        slots: (size,) position of every index in the list of all groups' channels, or `WHOLE`.
    """

    layer: str
    side: str
    slots: np.ndarray


@dataclass(frozen=True)
class TensorMap:
    """Which axis, if any, each dimension of a state-dict entry follows.

    Attributes:
        name: as the network calls it.
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
class Product:
    """A product of activations, such as in attention.

    Attributes:
        slots: (entries,) positions in the list of all groups' channels, or `WHOLE`.
        times: multiply-accumulates per entry.
    """

    slots: np.ndarray
    times: int


@dataclass(frozen=True)
class Graph:
    """Everything the rest needs to know of a network's structure; plain data.

    Attributes:
        groups: in the order in which the network computes them.
        axes: every prunable side of every layer.
        tensors: every parameter and buffer, also those that a state dict leaves out.
        products: products of activations.
        layers: output positions (height x width, summed over calls) of every conv and linear layer that was called.
        refused: layer -> why its output channels are never cut.
    """

    groups: tuple[Group, ...]
    axes: tuple[Axis, ...]
    tensors: tuple[TensorMap, ...]
    products: tuple[Product, ...]
    layers: dict[str, int]
    refused: dict[str, str]

    @cached_property
    def weights(self) -> dict[str, tuple[TensorMap, int]]:
        """Convolution or linear layer that produces channels of a group -> its weight, and the dimension that does."""
        return {
            self.axes[axis].layer: (tensor, dim)
            for tensor in self.tensors
            for dim, axis in enumerate(tensor.axes)
            if tensor.positions and axis is not None and self.axes[axis].side == "out"
        }

    @cached_property
    def reads(self) -> np.ndarray:
        """(groups, groups) bool, [g, h]: a layer that makes the channels of g reads those of another group h."""
        made = [set(group.producers) for group in self.groups]
        read = [set(group.consumers) for group in self.groups]
        found = np.array([[bool(mine & theirs) for theirs in read] for mine in made], dtype=bool)
        np.fill_diagonal(found, False)
        return found

    @property
    def sizes(self) -> np.ndarray:
        """(groups,) dense channel counts."""
        return np.array([group.channels for group in self.groups], dtype=np.int64)

    def split(self, values: np.ndarray) -> list[np.ndarray]:
        """(all groups' channels,) -> the part of every group; views, through which it can be changed."""
        return [values[group.start : group.start + group.channels] for group in self.groups]

    def layers_of(self, group: Group) -> tuple[str, ...]:
        """The convolutions and linear layers that produce the channels of a group."""
        return tuple(layer for layer in group.producers if layer in self.layers)

    def first_layer(self, group: Group) -> str:
        """The first convolution or linear layer that produces the channels of a group."""
        return self.layers_of(group)[0]

    def cut(self, kept: np.ndarray) -> "Graph":
        """The structure of the network that is left when channels go.

        Tracing that network could find another: where one channel is left, a depthwise convolution is like any other.

        Args:
            kept: (all groups' channels,) bool, True where a channel stays.
        """
        # One entry more, which stays WHOLE, is what index -1 (WHOLE) of an axis points at.
        stays, place = np.append(kept, True), np.append(np.cumsum(kept) - 1, WHOLE)

        def cut(slots: np.ndarray) -> np.ndarray:
            return place[slots[stays[slots]]]

        axes = tuple(replace(axis, slots=cut(axis.slots)) for axis in self.axes)
        counts = [int(mine.sum()) for mine in self.split(kept)]
        starts = np.cumsum([0, *counts]).tolist()
        return replace(
            self,
            groups=tuple(
                replace(group, channels=count, start=start)
                for group, count, start in zip(self.groups, counts, starts[:-1], strict=True)
            ),
            axes=axes,
            tensors=tuple(
                replace(
                    tensor,
                    shape=tuple(
                        size if axis is None else len(axes[axis].slots)
                        for size, axis in zip(tensor.shape, tensor.axes, strict=True)
                    ),
                )
                for tensor in self.tensors
            ),
            products=tuple(replace(product, slots=cut(product.slots)) for product in self.products),
        )
