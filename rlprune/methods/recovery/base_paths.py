"""Where the channels of one layer go straight into the layers that read them, each by itself.

Whether they do is tried: what becomes of the channels tells more than how that is written. On a straight path every
channel z becomes f(z), the same for all of them, and f(c z) = c f(z) for every c > 0. ReLU is such a function, and so
are pooling, flattening, dropout and everything made of them; a sum with a skip connection, GELU, ReLU6 or another norm
is not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.graph.structure import Graph, Group
from rlprune.methods.recovery.base import RepairContext
from rlprune.methods.recovery.base_consumers import channel_dim, hooked
from rlprune.methods.recovery.base_links import Links, links_of
from rlprune.utils.modules import CONVOLUTIONS

LARGE, SCALE = 100.0, 1.7
"""By how much all channels grow, so that whatever is cut off at a number shows, and every second one differs."""


@dataclass(frozen=True)
class StraightPath:
    """A group whose channels go straight from the layer that makes them to those that read them.

    Attributes:
        number: of the group.
        producer: the layer that makes its channels.
        norm: the batch norm that reads its outputs as they are, if there is one.
        made: (channels,) where they are in the outputs of both.
        read: reading layer -> (channels, times) where they are in its inputs, more than once where positions follow.
        up, down: slopes of f above and below 0.
    """

    number: int
    producer: str
    norm: str | None
    made: np.ndarray
    read: dict[str, np.ndarray]
    up: float = 1.0
    down: float = 1.0


def straight_paths(context: RepairContext) -> list[StraightPath]:
    """The straight paths of the dense network, found once for all its cuts."""
    return context.once(StraightPath, lambda: _find(context))


def _find(context: RepairContext) -> list[StraightPath]:
    links, module = links_of(context), context.module
    groups = enumerate(context.graph.groups)
    could = [path for number, group in groups if (path := _possible(number, group, context, links)) is not None]
    # Three copies of an image, of which the first one shows factors, the others the slopes.
    images = context.images[:1].expand(3, -1, -1, -1)
    before = _reads(module, {name for path in could for name in path.read}, images)
    return [path for one in could if (path := _tried(one, module, images, before)) is not None]


def _possible(number: int, group: Group, context: RepairContext, links: Links) -> StraightPath | None:
    """The path of a group that could be straight by its layers."""
    graph, producer = context.graph, group.producers[0]
    norm = links.norms.get(producer)
    layers = {name: context.module.get_submodule(name) for name in (producer, *group.consumers) if name in links.alone}
    plain = len(layers) == 1 + len(group.consumers) and getattr(layers[producer], "groups", 1) == 1
    readers = all(isinstance(layers.get(name), (*CONVOLUTIONS, nn.Linear)) for name in group.consumers)
    grouped = any(getattr(layer, "groups", 1) > 1 for layer in layers.values())
    multiplied = any(np.isin(_slots(group), product.slots).any() for product in graph.products)
    if not plain or not readers or grouped or multiplied or set(group.producers) != {producer, norm or producer}:
        return None
    made = _places(graph, producer, "out", group)
    read = {name: _places(graph, name, "in", group) for name in group.consumers}
    uneven = made.shape[1] != 1 or not all(places.size for places in read.values())
    return None if uneven else StraightPath(number, producer, norm, made[:, 0], read)


def _slots(group: Group) -> np.ndarray:
    return np.arange(group.start, group.start + group.channels)


def _places(graph: Graph, layer: str, side: str, group: Group) -> np.ndarray:
    """(channels, times) where the channels of a group are on a side of a layer; times 0 unless all are as often."""
    slots = next(axis.slots for axis in graph.axes if (axis.layer, axis.side) == (layer, side))
    places = [np.flatnonzero(slots == slot) for slot in _slots(group)]
    return np.stack(places) if len({len(mine) for mine in places}) == 1 else np.zeros((len(places), 0), dtype=int)


def _reads(module: nn.Module, names: Sequence[str] | set[str], images: Tensor) -> dict[str, Tensor]:
    """Layer -> (images, channels, ...) what it reads."""
    found: dict[str, Tensor] = {}

    def look(name: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found[name] = inputs[0].movedim(channel_dim(layer), 1).clone()

    layers = {name: module.get_submodule(name) for name in names}
    with hooked([layer.register_forward_pre_hook(partial(look, name)) for name, layer in layers.items()]):
        module(images)
    return found


def _tried(path: StraightPath, module: nn.Module, images: Tensor, before: dict[str, Tensor]) -> StraightPath | None:
    """The path with the slopes of its function, or None if it is not straight."""
    made = torch.from_numpy(path.made).to(images.device)
    last = len(made) // 2 * 2

    def change(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> Tensor:
        dim = channel_dim(layer)
        changed = output.movedim(dim, 1).clone()
        changed[0, made] *= LARGE
        changed[0, made[1:last:2]] = SCALE * changed[0, made[0:last:2]]
        changed[1, made], changed[2, made] = 1.0, -1.0
        return changed.movedim(1, dim)

    with hooked([module.get_submodule(path.norm or path.producer).register_forward_hook(change)]):
        after = _reads(module, set(path.read), images)
    slopes = []
    for name, places in path.read.items():
        there = torch.from_numpy(places).to(images.device)
        # (images, channels, times, ...)
        old, new = before[name][:, there], after[name][:, there]
        expected = torch.stack([LARGE * old[0], *(new[number, :1].expand_as(new[0]) for number in (1, 2))])
        expected[0, 1:last:2] = SCALE * expected[0, 0:last:2]
        if not torch.allclose(new, expected, rtol=1e-3, atol=1e-5 * float(new[0].abs().max())):
            return None
        slopes.append((float(new[1].mean()), -float(new[2].mean())))
    return StraightPath(path.number, path.producer, path.norm, path.made, path.read, *np.mean(slopes, axis=0).tolist())
