"""Exact multiply-accumulates and parameters of any kept counts, for many plans at once.

MACs are those of convolutions, linear layers and products of activations for one input (bias, normalisation and
activation functions are not counted, as in the pruning literature); parameters are all trainable numbers.
1 MAC = one multiply-accumulate.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from rlprune.graph.structure import WHOLE, Graph

RESOURCES = ("macs", "params")


@dataclass(frozen=True)
class Cost:
    """The coupled cost of a network as a function of its groups' kept counts.

    Every tensor holds a fixed number of entries times the kept sizes of at most two axes, and a conv or linear weight
    is used once per output position. Both costs are therefore one weighted sum of products of sizes. What is inside a
    residual block that is taken out, all of whose inner groups keep 0 channels, is subtracted.

    Attributes:
        whole: (distinct sizes,) how much of a size always stays; one of the sizes is the constant 1.
        per_channel: (distinct sizes, groups) how much a kept channel of a group adds to a size.
        first, second: (products,) the two sizes of every product.
        weights: (products, 2) MACs and parameters that go with a product.
        dense: (2,) MACs and parameters of the dense network.
        sizes: (groups,) channels of the dense network.
        widths: (groups,) output channels of a group's first layer in each of its channels.
        blocks: the inner groups of every residual block that may be taken out.
        inside: for each of them the products of its own tensors: first and second sizes and weights, as above.
    """

    whole: np.ndarray
    per_channel: np.ndarray
    first: np.ndarray
    second: np.ndarray
    weights: np.ndarray
    dense: np.ndarray
    sizes: np.ndarray
    widths: np.ndarray
    blocks: tuple[tuple[int, ...], ...] = ()
    inside: tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...] = ()

    resources: ClassVar[tuple[str, ...]] = RESOURCES
    """What is counted, in the order of the last axis of all results."""

    def __call__(self, counts: np.ndarray) -> np.ndarray:
        """MACs and parameters.

        Args:
            counts: (..., groups) kept channels; what stands in a plan behind them is left aside.

        Returns:
            (..., 2) MACs per image and parameters, exact in float64 up to 2**53.
        """
        counts = np.asarray(counts)[..., : len(self.sizes)]
        kept = counts.astype(np.float64) @ self.per_channel.T + self.whole
        total: np.ndarray = (kept[..., self.first] * kept[..., self.second]) @ self.weights
        if not self.blocks or counts.all():
            return total
        for out, (first, second, weights) in zip(self.taken_out(counts), self.inside, strict=True):
            total[out] -= (kept[out][:, first] * kept[out][:, second]) @ weights
        return total

    def taken_out(self, counts: np.ndarray) -> list[np.ndarray]:
        """For every block (...,) bool, whether (..., groups) kept channels take it out."""
        return [np.asarray((counts[..., list(groups)] == 0).all(axis=-1)) for groups in self.blocks]

    def saved_alone(self, counts: np.ndarray) -> np.ndarray:
        """(groups, 2) fractions of the dense MACs and parameters that go when one group alone is cut to its count.

        Args:
            counts: (groups,) kept channels. Groups share weights, so that the fractions do not add up.
        """
        alone = np.tile(self.sizes, (len(self.sizes), 1))
        np.fill_diagonal(alone, counts)
        # A block goes with all of its groups at once.
        for out, groups in zip(self.taken_out(counts), self.blocks, strict=True):
            if out:
                alone[np.ix_(groups, groups)] = 0
        return 1 - self.ratios(alone)

    def saved_without(self) -> np.ndarray:
        """(blocks, 2) fractions of the dense MACs and parameters that go when one block alone is taken out."""
        without = np.tile(self.sizes, (len(self.blocks), 1))
        for row, groups in zip(without, self.blocks, strict=True):
            row[list(groups)] = 0
        return 1 - self.ratios(without)

    def ratios(self, counts: np.ndarray) -> np.ndarray:
        """The same, relative to the dense network: (..., 2) in (0, 1]."""
        return self(counts) / self.dense


def build_cost(graph: Graph) -> Cost:
    """The cost function of a traced network."""
    whole, per_channel = axis_sizes(graph)
    sizes, same = np.unique(np.column_stack([whole, per_channel]), axis=0, return_inverse=True)
    everything = _products(graph, same.ravel(), lambda name: True)
    widths = np.array([group.width for group in graph.groups], dtype=np.int64)
    cost = Cost(
        sizes[:, 0],
        sizes[:, 1:],
        *everything,
        np.ones(2),
        graph.sizes,
        widths,
        tuple(block.groups for block in graph.blocks),
        tuple(_products(graph, same.ravel(), block.holds) for block in graph.blocks),
    )
    return replace(cost, dense=cost(graph.sizes))


def group_costs(graph: Graph, counts: np.ndarray) -> np.ndarray:
    """MACs and parameters of the weights that make the channels of each group, where all groups are cut.

    Every weight belongs to the group of its outputs, so that nothing is counted twice; the layers whose outputs are
    never cut, such as the classifier, and products of activations belong to none. What is in a block that is taken out
    costs nothing.

    Args:
        graph: structure of the network.
        counts: (groups,) kept channels.

    Returns:
        (groups, 2) MACs per image and parameters.
    """
    whole, per_channel = _sizes(graph, [axis.slots for axis in graph.axes])
    parts = per_channel * counts
    kept, costs = whole + parts.sum(axis=1), np.zeros((len(graph.groups), 2))
    out = graph.taken_out(np.asarray(counts))
    for tensor in graph.tensors:
        follows = [axis for axis in tensor.axes if axis is not None]
        if any(block.holds(tensor.name) for block in out):
            continue
        for axis in (axis for axis in follows if graph.axes[axis].side == "out"):
            fixed = np.prod([size for size, along in zip(tensor.shape, tensor.axes, strict=True) if along is None])
            others = fixed * np.prod([kept[other] for other in follows if other != axis])
            costs += others * np.outer(parts[axis], [tensor.positions, tensor.parameter])
    return costs


def axis_sizes(graph: Graph) -> tuple[np.ndarray, np.ndarray]:
    """How the sizes of a network follow from kept counts: size = whole + per_channel @ counts.

    Returns:
        (sizes,) and (sizes, groups), of all axes, then all products of activations; the last is the constant 1.
    """
    return _sizes(graph, [axis.slots for axis in graph.axes] + [product.slots for product in graph.products])


def _sizes(graph: Graph, axes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """How much of every axis always stays, and how much (axes + 1, groups) a kept channel adds; the last is the 1."""
    whole = np.array([(slots == WHOLE).sum() for slots in axes] + [1], dtype=np.float64)
    per_channel = np.zeros((len(axes) + 1, len(graph.groups)))
    starts = np.array([group.start for group in graph.groups])
    for row, slots in enumerate(axes):
        owners = np.searchsorted(starts, slots[slots != WHOLE], side="right") - 1
        per_channel[row] = np.bincount(owners, minlength=len(starts)) / graph.sizes
    return whole, per_channel


def _products(graph: Graph, same: np.ndarray, mine: Callable[[str], bool]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The products of two axis sizes, with the MACs and parameters of each; axes that are always equal are one.

    Args:
        graph: structure of the network.
        same: (axes,) number of every axis's size.
        mine: whether a tensor, or a layer with products of activations, counts.

    Returns:
        (products,) first and second sizes, and (products, 2) MACs and parameters.
    """
    pairs: dict[tuple[int, int], np.ndarray] = {}
    nowhere = len(same) - 1

    def add(axes: list[int], weight: np.ndarray) -> None:
        if weight.any():
            first, second = sorted(int(same[axis]) for axis in [*axes, nowhere, nowhere][:2])
            pairs[first, second] = pairs.get((first, second), np.zeros(2)) + weight

    for tensor in (tensor for tensor in graph.tensors if mine(tensor.name)):
        fixed = np.prod([size for size, axis in zip(tensor.shape, tensor.axes, strict=True) if axis is None])
        follows = [axis for axis in tensor.axes if axis is not None]
        add(follows, np.array([fixed * tensor.positions, fixed * tensor.parameter]))
    for number, product in enumerate(graph.products, start=len(graph.axes)):
        add([number], np.array([product.times, 0]) * mine(product.layer))
    first, second = np.array(list(pairs), dtype=np.int64).reshape(-1, 2).T
    return first, second, np.array(list(pairs.values()), dtype=np.float64).reshape(-1, 2)
