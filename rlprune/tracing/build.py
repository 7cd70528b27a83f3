"""Network -> groups of coupled channels, with the index maps that slice every tensor of a group.

The network is run once; afterwards every kept slice of every tensor follows from plain integer arrays.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from torch import nn

from rlprune.errors import UserError
from rlprune.graph.structure import WHOLE, Axis, Graph, Group, Product, TensorMap
from rlprune.tracing.blocks import find_blocks
from rlprune.tracing.coupling import Coupling, Side, trace_coupling
from rlprune.tracing.examples import Example, call
from rlprune.tracing.running import described, explain
from rlprune.tracing.selection import EVERYTHING, Choice, declare
from rlprune.tracing.verify import misread_groups
from rlprune.utils.lazy import settle
from rlprune.utils.modules import named_tensors, unwrapped

UNUSED = "it runs in training mode only"
ASIDE = "only some inputs reach it"
SINGLE = "it has a single channel"
TOGETHER = "all its channels can only go together"


def build_graph(
    module: nn.Module, example: Example, choice: Choice = EVERYTHING, more: Sequence[Example] = ()
) -> Graph:
    """Trace a network into its groups.

    Args:
        module: the dense network; it is left as it was, except that lazy layers get their sizes.
        example: one input on the module's device, batched: a tensor, a tuple of what the network takes, or a mapping
            of its named arguments.
        choice: which layers may be cut, and groups declared by hand.
        more: real inputs, such as a few images one by one: where the network branches on its data, they show more of
            it than one input does. The costs are those of the heaviest.

    Raises:
        UserError: the network cannot be run, nothing in it can be pruned, or the choice does not fit it.
    """
    module = unwrapped(module)
    settle(module, lambda: call(module, example), described(example))
    try:
        coupling = trace_coupling(module, example, more=more)
    except UserError:
        raise
    except Exception as error:
        explain(module, example, error)
        raise
    choice.check([layer for layer in coupling.layers if layer in coupling.weights])
    declared = declare(coupling, choice, named_tensors(module))
    graph = assemble(module, coupling, choice)
    if misread := misread_groups(module, graph, example, coupling, declared, more):
        for makers, _ in choice.declared:
            if makers[0] in misread:
                raise UserError(
                    f"the declared group '{makers[0]}' cannot be cut: the network does not run without some of its "
                    "channels; is every layer named that makes or reads them?"
                )
        graph = assemble(module, coupling, choice, misread)
    if not graph.groups:
        reasons = "; ".join(f"{layer}: {why}" for layer, why in list(graph.refused.items())[:3])
        raise UserError(f"no channels of this network can be pruned ({reasons or 'it has no conv or linear layers'})")
    return replace(graph, blocks=find_blocks(module, graph, coupling, choice, example, more))


def assemble(
    module: nn.Module,
    coupling: Coupling,
    choice: Choice = EVERYTHING,
    misread: Mapping[str, str] = MappingProxyType({}),
) -> Graph:
    """Gather channels into groups and number them.

    Args:
        module: the dense network.
        coupling: what was traced of it.
        choice: which of them may be cut.
        misread: names of groups that must stay whole, and why.
    """
    sides, occurrences = _occurrences(coupling)
    slots = np.full(len(occurrences), WHOLE, dtype=np.int64)
    why: dict[int, str] = {}
    groups: list[Group] = []
    start = 0
    for name, first, channels in _named(coupling, sides, occurrences):
        touched = sorted({sides[side] for side in occurrences[channels[0]]}, key=lambda side: coupling.order[side[0]])
        axis = coupling.axes[first, "out"]
        producers = tuple(dict.fromkeys(layer for layer, side in touched if side == "out"))
        used = any(coupling.weights.get(layer) in coupling.positions for layer in producers)
        reason = choice.why_not(layer for layer in producers if layer in coupling.weights)
        if len(channels) < 2 or name in misread or not used:
            unused = ASIDE if coupling.steered else UNUSED
            reason = misread.get(name) or (unused if not used else SINGLE if len(axis) < 2 else TOGETHER)
        if reason:
            why |= dict.fromkeys(channels.tolist(), reason)
            continue
        slots[channels] = np.arange(start, start + len(channels))
        ties = tuple(dict.fromkeys(coupling.notes.get(int(channels[0]), ())))
        consumers = tuple(dict.fromkeys(layer for layer, side in touched if side == "in"))
        groups.append(Group(name, len(channels), start, producers, consumers, int((axis == channels[0]).sum()), ties))
        start += len(channels)
    return _graph(module, coupling, tuple(groups), slots, why)


def _occurrences(coupling: Coupling) -> tuple[list[Side], list[np.ndarray]]:
    """All sides, and for every channel on which of them it occurs, once for each of its indices there."""
    sides = [side for side in coupling.axes if side[1] != "fold"]
    sizes = [len(coupling.axes[side]) for side in sides]
    found = np.concatenate([coupling.axes[side] for side in sides] or [np.zeros(0, dtype=np.int64)])
    where = np.repeat(np.arange(len(sides)), sizes)[np.argsort(found, kind="stable")]
    return sides, np.split(where, np.cumsum(np.bincount(found, minlength=1))[:-1])


def _named(
    coupling: Coupling, sides: list[Side], occurrences: list[np.ndarray]
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Name, first producing layer and channels of every group, in the order in which the network computes them.

    Channels that occur equally often on the same sides are one group. It is called after the first layer that
    produces just these channels; where every layer produces others too, pieces of the first one are numbered.
    """
    done: set[int] = {0}
    alike: dict[tuple[int, ...], int] = {}
    of = np.array([alike.setdefault(tuple(where.tolist()), len(alike)) for where in occurrences])
    together = np.split(np.argsort(of, kind="stable"), np.cumsum(np.bincount(of))[:-1])
    for layer in (layer for layer in coupling.layers if layer in coupling.weights):
        for piece, channel in enumerate(dict.fromkeys(coupling.axes[layer, "out"].tolist())):
            if channel in done:
                continue
            channels = together[of[channel]]
            done.update(channels.tolist())
            touched = {sides[side][0] for side in occurrences[channel] if sides[side][1] == "out"}
            makers = sorted(touched & set(coupling.weights), key=coupling.order.__getitem__)
            whole = [maker for maker in makers if np.isin(coupling.axes[maker, "out"], channels).all()]
            leader = (whole or makers)[0]
            name = leader if whole else f"{layer}#{piece}"
            yield name, leader, _in_order(coupling.axes[leader, "out"], channels)


def _in_order(axis: np.ndarray, channels: np.ndarray) -> np.ndarray:
    """Channels in the order in which a layer produces them."""
    return np.array(list(dict.fromkeys(axis[np.isin(axis, channels)].tolist())), dtype=np.int64)


def _graph(
    module: nn.Module, coupling: Coupling, groups: tuple[Group, ...], slots: np.ndarray, why: dict[int, str]
) -> Graph:
    cut = {side: slots[axis] for side, axis in coupling.axes.items() if (slots[axis] != WHOLE).any()}
    axes = [Axis(*side, found) for side, found in cut.items()]
    index = {side: position for position, side in enumerate(cut)}
    parameters, follows = dict(module.named_parameters()), coupling.follows
    tensors = [
        TensorMap(
            name,
            # What is in parts that cannot be looked into follows nothing.
            tuple(None if side is None else index.get(side) for side in follows.get(name, (None,) * tensor.dim())),
            tuple(tensor.shape),
            name in parameters,
            coupling.positions.get(name, 0),
        )
        for name, tensor in named_tensors(module).items()
    ]
    layers = {layer: coupling.positions[name] for layer, name in coupling.weights.items() if name in coupling.positions}
    refused = {
        layer: coupling.reasons.get(layer) or why[int(coupling.axes[layer, "out"][0])]
        for layer in coupling.layers
        if (layer in coupling.weights or layer in coupling.reasons) and (layer, "out") not in cut
    }
    products = tuple(Product(slots[channels], times, layer) for channels, times, layer in coupling.products)
    return Graph(groups, tuple(axes), tuple(tensors), products, layers, refused)
