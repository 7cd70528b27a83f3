"""Densities of layers, as rules for single weights have them, turned into kept channels.

A density is the share of a layer's weights that stays. Where channels go, a layer loses outputs and inputs, and its
density is the product of the keep ratios of its sides. So every layer asks the groups on its sides that can be cut for
an equal part of its density: two for its square root, one alone, as of the first layer, of the last and of a depthwise
convolution, for all of it. A group has several layers, and its keep ratio is the geometric mean of what they ask for.
Most layers then have other densities than they were given, as no channels give every layer its own.
"""

import numpy as np

from rlprune.cost.projection import BudgetProjector
from rlprune.graph.structure import WHOLE, Graph, TensorMap
from rlprune.methods.allocators.base_scale import largest_plan


def layer_weights(graph: Graph) -> list[TensorMap]:
    """The weights of all convolutions and linear layers."""
    return [tensor for tensor in graph.tensors if tensor.positions]


def groups_on(graph: Graph, axis: int) -> np.ndarray:
    """The groups whose channels one axis of a tensor has."""
    slots = graph.axes[axis].slots
    starts = [group.start for group in graph.groups]
    return np.unique(np.searchsorted(starts, slots[slots != WHOLE], side="right") - 1)


def groups_read_last(graph: Graph) -> np.ndarray:
    """The groups whose channels the layer that the network uses last reads."""
    last = list(graph.layers)[-1]
    return np.flatnonzero([last in group.consumers for group in graph.groups])


def shares(graph: Graph) -> np.ndarray:
    """(groups, layers) how a group's keep ratio follows from densities: log ratios = shares @ log densities.

    Args:
        graph: structure of the network; its layers are those of `layer_weights`.
    """
    layers = layer_weights(graph)
    asked, sides = np.zeros((len(graph.groups), len(layers))), np.zeros((len(graph.groups), 1))
    for number, tensor in enumerate(layers):
        cut = [axis for axis in tensor.axes if axis is not None]
        for axis in cut:
            groups = groups_on(graph, axis)
            asked[groups, number] += 1 / len(cut)
            sides[groups] += 1
    return asked / sides


def random_graph_densities(strengths: np.ndarray, log_scale: float) -> np.ndarray:
    """Logarithms of densities in proportion to strengths, none above 1.

    Erdős-Rényi rules set the layers above 1 to 1 and solve for the scale of the others anew, until there is none: for
    the scale that is left in the end it is this.

    Args:
        strengths: (layers,) of the rule.
        log_scale: logarithm of the factor on them.
    """
    return np.minimum(np.log(strengths) + log_scale, 0)


def random_graph_plan(
    graph: Graph, strengths: np.ndarray, projector: BudgetProjector, whole: np.ndarray | None = None
) -> np.ndarray:
    """The largest plan inside the budget of an Erdős-Rényi rule, whose one scale is found by bisection.

    Args:
        graph: structure of the network.
        strengths: (layers,) that the densities of `layer_weights` are in proportion to.
        projector: cost and budget.
        whole: groups that keep all of their channels if the budget allows it.

    Returns:
        (groups,) kept counts.
    """
    matrix, sizes = shares(graph), projector.sizes

    def wished(log_scale: float) -> np.ndarray:
        ratios = np.exp(matrix @ random_graph_densities(strengths, log_scale))
        ratios[whole if whole is not None else []] = 1
        return sizes * ratios

    # From where no group wishes for more than one channel, as it is asked for the root of a density or less, to all.
    logs = np.log(strengths)
    return largest_plan(projector, wished, -logs.max() - 2 * np.log(sizes.max()), -logs.min())
