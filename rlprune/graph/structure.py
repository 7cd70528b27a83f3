"""The structure of a network: groups of coupled channels, and the index maps that slice every tensor of a group.

Residual blocks that may be taken out whole are part of it. Without one of them its skip connection goes on alone.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from rlprune.errors import UserError

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
        layer: the module in which it is.
    """

    slots: np.ndarray
    times: int
    layer: str = ""


@dataclass(frozen=True)
class Block:
    """A residual block that may be taken out whole.

    Attributes:
        name: its module.
        groups: indices of its inner groups, those that no layer outside makes or reads.
        remains: what stands in its place then: a part of it by its name inside it, an activation such as ``nn.ReLU``,
            or, where it is empty, nothing but the skip connection.
    """

    name: str
    groups: tuple[int, ...]
    remains: str = ""

    def holds(self, name: str) -> bool:
        """Whether a layer or a tensor is inside."""
        return name == self.name or name.startswith(f"{self.name}.")


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
        blocks: residual blocks that may be taken out, in the order of their first groups; none is inside another.
    """

    groups: tuple[Group, ...]
    axes: tuple[Axis, ...]
    tensors: tuple[TensorMap, ...]
    products: tuple[Product, ...]
    layers: dict[str, int]
    refused: dict[str, str]
    blocks: tuple[Block, ...] = ()

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

    def taken_out(self, counts: np.ndarray) -> tuple[Block, ...]:
        """The blocks that are taken out: none of their inner groups keeps a channel.

        Args:
            counts: (groups,) kept channels.

        Raises:
            UserError: another group keeps none.
        """
        out = tuple(block for block in self.blocks if not counts[list(block.groups)].any())
        allowed = {group for block in out for group in block.groups}
        for number in np.flatnonzero(counts == 0).tolist():
            if number not in allowed:
                raise UserError(self._why_not_empty(number))
        return out

    def _why_not_empty(self, number: int) -> str:
        """What is wrong with a group that keeps no channel."""
        told = f"'{self.groups[number].name}' keeps no channel"
        for block in self.blocks:
            if number in block.groups:
                names = ", ".join(self.groups[other].name for other in block.groups)
                return f"{told}: the block '{block.name}' goes whole or not at all, with all of {names}"
        names = ", ".join(block.name for block in self.blocks) or "none in this network"
        return f"{told}, and it belongs to no residual block that could be taken out ({names}): keep at least one"

    def counts_of(self, kept: np.ndarray) -> np.ndarray:
        """(groups,) how many channels stay, of (all groups' channels,) bool."""
        return np.array([mine.sum() for mine in self.split(kept)], dtype=np.int64)

    def cut(self, kept: np.ndarray) -> "Graph":
        """The structure of the network that is left when channels go.

        Tracing that network could find another: where one channel is left, a depthwise convolution is like any other.

        Args:
            kept: (all groups' channels,) bool, True where a channel stays.
        """
        counts = self.counts_of(kept)
        if out := self.taken_out(counts):
            return self._without(out)._narrowed(kept, counts[counts > 0].tolist())
        return self._narrowed(kept, counts.tolist())

    def _without(self, out: tuple[Block, ...]) -> "Graph":
        """The same but for blocks and all that is in them; the channels are numbered as before."""

        def left(name: str) -> bool:
            return not any(block.holds(name) for block in out)

        gone = {group for block in out for group in block.groups}
        numbers = [number for number in range(len(self.groups)) if number not in gone]
        axes = [place for place, axis in enumerate(self.axes) if left(axis.layer)]
        return Graph(
            tuple(
                replace(
                    group,
                    producers=tuple(filter(left, group.producers)),
                    consumers=tuple(filter(left, group.consumers)),
                    ties=tuple(tie for tie in group.ties if left(tie.partition(" in ")[2])),
                )
                for group in (self.groups[number] for number in numbers)
            ),
            tuple(self.axes[place] for place in axes),
            tuple(
                replace(tensor, axes=tuple(None if axis is None else axes.index(axis) for axis in tensor.axes))
                for tensor in self.tensors
                if left(tensor.name)
            ),
            tuple(product for product in self.products if left(product.layer)),
            {layer: positions for layer, positions in self.layers.items() if left(layer)},
            {layer: why for layer, why in self.refused.items() if left(layer)},
            tuple(
                replace(block, groups=tuple(numbers.index(group) for group in block.groups))
                for block in self.blocks
                if block not in out
            ),
        )

    def _narrowed(self, kept: np.ndarray, counts: list[int]) -> "Graph":
        # One entry more, which stays WHOLE, is what index -1 (WHOLE) of an axis points at.
        stays, place = np.append(kept, True), np.append(np.cumsum(kept) - 1, WHOLE)

        def cut(slots: np.ndarray) -> np.ndarray:
            return place[slots[stays[slots]]]

        axes = tuple(replace(axis, slots=cut(axis.slots)) for axis in self.axes)
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
