"""Layers that read channels of which some were cut: what repairs change."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rlprune.evaluation.sliced import norms_of, recalibrating
from rlprune.methods.recovery.base import Cut, RepairContext
from rlprune.methods.recovery.base_links import hooked, links_of
from rlprune.utils.memory import all_at_once
from rlprune.utils.modules import CONVOLUTIONS

Layer = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
LAYERS = (*CONVOLUTIONS, nn.Linear)
CHUNK = 50
"""Images that go through the dense network at once."""


def channel_dim(layer: nn.Module) -> int:
    """The dimension of channels in what goes into a layer and comes out of it."""
    return -1 if isinstance(layer, nn.Linear) else 1


@dataclass(frozen=True)
class Consumer:
    """A layer of the cut network that reads less than it did.

    Attributes:
        name: of the layer.
        dense, layer: as it was, and as it is.
        read: (inputs,) bool, which channels of the dense layer's inputs are left.
        made: (outputs,) bool, which of its outputs are left.
        norms: the batch norm that reads its outputs as they are, in the dense and in the cut network; None if there is
            none.
    """

    name: str
    dense: Layer
    layer: Layer
    read: np.ndarray
    made: np.ndarray
    norms: tuple[_BatchNorm, _BatchNorm] | None

    @property
    def takes_constants(self) -> bool:
        """Whether a number can be added to every output, in the layer or in the batch norm behind it."""
        return self.layer.bias is not None or self.norms is not None

    def add(self, constants: Tensor) -> None:
        """Add (outputs left,) numbers to the outputs: to the bias, or away from the mean that batch norm takes off."""
        if self.layer.bias is not None:
            self.layer.bias.data += constants
        elif self.norms is not None:
            mean(self.norms[1]).sub_(constants)

    @property
    def added(self) -> Tensor | None:
        """(outputs left,) what repairs have taken off the mean of the batch norm behind the layer; None without one."""
        if self.layer.bias is not None or self.norms is None:
            return None
        dense, mine = (mean(norm) for norm in self.norms)
        return dense[left(self.made, dense)] - mine


def mean(norm: _BatchNorm) -> Tensor:
    """The running mean of a batch norm that has one."""
    assert norm.running_mean is not None
    return norm.running_mean


def left(stays: np.ndarray, like: Tensor) -> Tensor:
    """The indices that stay, on a tensor's device."""
    return torch.from_numpy(np.flatnonzero(stays)).to(like.device)


def consumers(module: nn.Module, cut: Cut, context: RepairContext) -> list[Consumer]:
    """The layers that read less than they did, as far as they can be changed one by one.

    Left out are layers with several groups, which read what they make, and layers that run several times or share
    their weights.

    Args:
        module: the cut network.
        cut: what was cut.
        context: the dense network.
    """
    links, found = links_of(context), []
    before, now = (dict(network.named_modules()) for network in (context.module, module))
    for name in cut.graph.layers:
        read, dense, layer = cut.stays(name, "in"), before.get(name), now.get(name)
        if name not in links.alone or read is None or read.all() or getattr(dense, "groups", 1) > 1:
            continue
        # In the place of a block that is taken out there is no such layer, and no such batch norm.
        if isinstance(dense, LAYERS) and isinstance(layer, LAYERS):
            made, norm = cut.stays(name, "out"), links.norms.get(name, "")
            made = np.ones(len(dense.weight), dtype=bool) if made is None else made
            was, is_now = before.get(norm), now.get(norm)
            both = (was, is_now) if isinstance(was, _BatchNorm) and isinstance(is_now, _BatchNorm) else None
            found.append(Consumer(name, dense, layer, read, made, both))
    return found


def front_to_back(
    module: nn.Module, context: RepairContext, found: list[Consumer], change: Callable[[Consumer, Tensor], None]
) -> None:
    """Change layers one after the other, each by what it reads in the network that is repaired so far.

    A single pass does: a layer is changed as it is reached, and whatever comes behind sees that. Batch norm runs as it
    will run in the end, with the statistics that it has or, where it is recalibrated, with those of the images.

    Args:
        module: the cut network.
        context: the calibration images, which are run at once.
        found: its layers that are to be changed.
        change: told of a layer and what it reads.
    """

    def reached(consumer: Consumer, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if len(inputs[0]) == len(context.images):
            change(consumer, inputs[0])

    norms = norms_of(module) if context.recalibrates else []
    hooks = [one.layer.register_forward_pre_hook(partial(reached, one)) for one in found]
    with hooked(hooks), recalibrating(norms), all_at_once(context.images):
        module(context.images)


Look = Callable[[str, Tensor, int], None]
"""A layer's name, what comes out of it, and the number of the first of these images."""


def watch_dense(context: RepairContext, look: Look) -> set[str]:
    """Run the dense network on all calibration images and show every layer that may read less one day.

    Args:
        context: the network and the images.
        look: is shown the layers.

    Returns:
        Those that ran for every image: where a network branches on what it sees, some do not.
    """
    links, layers = links_of(context), {axis.layer for axis in context.graph.axes if axis.side == "in"}
    first, rows = 0, Counter[str]()

    def after(name: str, _: nn.Module, args: tuple[Tensor, ...], output: Any) -> None:
        rows[name] += len(output)
        look(name, output, first)

    named = {name: context.module.get_submodule(name) for name in context.graph.layers if name in layers & links.alone}
    with hooked([part.register_forward_hook(partial(after, name)) for name, part in named.items()]):
        for chunk in context.images.split(CHUNK):
            with all_at_once(context.images):
                context.module(chunk)
            first += len(chunk)
    return {name for name, count in rows.items() if count == len(context.images)}
