"""A network whose channels are chosen for every image while it runs (Chen, Chen & Pan, NeurIPS 2020).

Before a gated layer runs, its pooled input foretells how important each of its channels is for this image, as in FBS
(Gao et al., 2018, arXiv 1810.05331). What is kept is scaled by that importance where it is read; what is not is zero
there, which is what leaving it out does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from rlprune.gating.gate import Choose, Decide, Gate, Wire, keep_all, plain, pool
from rlprune.gating.masks import merge
from rlprune.graph.structure import Graph


class GatedNetwork(nn.Module):
    """A network with a gate before every layer that can be skipped in parts.

    Args:
        network: gets hooks; its layers stay where they are.
        graph: its structure.
        wires: where the gates are, in the order in which the network comes to them.
        gates: one for every wire.
        mix: 0, the static agent decides alone, to 1, the runtime agent does; see `rlprune.gating.masks.merge`.

    Attributes:
        runtime: decides how much of every layer runs; without it everything does.
        masks: for every gate the (images, channels) mask of the last images, as far as they have come.
        sides: (layer, side) -> the gated channels along it.
        choose: chooses in the place of gates and `runtime`; see `rlprune.gating.single_image`.
        kept: where only the chosen channels are computed, those of every gate so far; see `rlprune.gating.skipping`.
    """

    def __init__(
        self, network: nn.Module, graph: Graph, wires: Sequence[Wire], gates: Sequence[Gate], mix: float
    ) -> None:
        super().__init__()
        self.network, self.graph, self.mix = network, graph, mix
        self.wires = tuple(wires)
        self.gates = nn.ModuleList(gates)
        self.runtime: nn.Module | None = None
        self._decide: Decide = keep_all
        self.masks: list[Tensor] = []
        self.sides = find_sides(graph, self.wires)
        self.choose: Choose | None = None
        self.kept: dict[int, Tensor] | None = None
        self._factors: dict[int, Tensor] = {}
        self._hooks: list[RemovableHandle] = []
        self._hook(dict(network.named_modules()))

    def forward(self, images: Tensor, decide: Decide | None = None) -> Tensor:
        """(images, classes) logits, with only the channels that `runtime`, or somebody else, chooses."""
        # Wrapped, for a module that is assigned becomes a part of this one.
        self._decide = partial(decide or self.runtime or keep_all)
        self.forget()
        logits: Tensor = self.network(images)
        return logits

    def forget(self) -> None:
        """What is left of the last images."""
        self.masks.clear()
        self._factors.clear()
        if self.kept is not None:
            self.kept.clear()

    def counts(self) -> np.ndarray:
        """(images, groups) channels that ran for the last images; groups without a gate ran whole."""
        found = np.tile(self.graph.sizes, (len(self.masks[0]), 1))
        for wire, mask in zip(self.wires, self.masks, strict=True):
            found[:, wire.group] = mask.sum(-1).cpu().numpy()
        return found

    def gate(self, number: int) -> Gate:
        """One of the gates."""
        found = self.gates[number]
        assert isinstance(found, Gate)
        return found

    def _hook(self, layers: dict[str, nn.Module]) -> None:
        """What is read is scaled first; then a gate looks at it."""
        names = dict.fromkeys([*(layer for layer, _ in self.sides), *(wire.layer for wire in self.wires)])
        for found in [layers[name] for name in names]:
            self._hooks.append(found.register_forward_pre_hook(_by_position, with_kwargs=True))
        for (layer, kind), side in self.sides.items():
            if kind == "in":
                self._hooks.append(layers[layer].register_forward_pre_hook(partial(self._scale, side)))
        for number, wire in enumerate(self.wires):
            self._hooks.append(layers[wire.layer].register_forward_pre_hook(partial(self._choose, number)))

    def bare(self) -> nn.Module:
        """The network as it was before, without hooks; this module can no longer be used."""
        for hook in self._hooks:
            hook.remove()
        return self.network

    def _choose(self, number: int, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Before a gated layer runs: how much of it, and which; called once more, it runs with the same channels."""
        if number in self._factors:
            return
        pooled = self._whole(number, pool(inputs[0]).float())
        mask, factor = (self.choose or self.chosen)(number, pooled)
        self.masks.append(mask)
        if (stays := self.gate(number).stays) is not None:
            mask, factor = mask[:, stays], factor[:, stays]
        if self.kept is None:
            self._factors[number] = factor * mask
        elif len(mask) == 1:
            self._factors[number], self.kept[number] = factor, mask[0].nonzero()[:, 0]
        else:
            self._factors[number], self.kept[number] = factor * mask, mask.any(0).nonzero()[:, 0]

    def chosen(self, number: int, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """(images, channels) what runs for each image, and what it is scaled by."""
        gate = self.gate(number)
        # In full precision, for a channel more or less is a matter of the last digits.
        with torch.autocast(pooled.device.type, enabled=False):
            importance = gate.importance(pooled)
            factor = importance * gate.scale
        keeps = self._decide(number, pooled, importance)
        if keeps is None:
            return torch.ones_like(factor, dtype=torch.bool), factor
        runtime, static = plain(gate.runtime_scores(importance)), plain(gate.static_scores())
        runs = merge(runtime, static, keeps.runtime, keeps.static, self.mix)
        return torch.from_numpy(runs).to(factor.device), factor

    def _whole(self, number: int, pooled: Tensor) -> Tensor:
        """Pooled features with zeros for the channels that were not computed."""
        side = self.sides.get((self.wires[number].layer, "in"))
        if self.kept is None or side is None:
            return pooled
        whole = pooled.new_zeros(len(pooled), side.size)
        return whole.index_copy_(1, side.index(self.kept), pooled)

    def _scale(self, side: "Side", layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Before a layer runs that reads gated channels: those that were left out are zero, or not there at all."""
        images, *rest = inputs
        factor = side.factor(self._factors, images)
        if self.kept is not None:
            factor = factor.index_select(1, side.index(self.kept))
        if not isinstance(layer, nn.Linear):
            factor = factor.reshape(*factor.shape, *[1] * (images.ndim - 2))
        elif images.ndim > 2:
            # Channels come last here, behind all positions.
            factor = factor.reshape(len(factor), *[1] * (images.ndim - 2), -1)
        return images * factor.to(images.dtype), *rest


def _by_position(
    layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """A layer's one input, which may come by its name."""
    return (tuple(named.values()), {}) if not inputs and len(named) == 1 else None


@dataclass(frozen=True)
class Part:
    """A stretch of the channels along one side of a layer: of which gate, -1 for none, and which of its channels."""

    gate: int
    channels: Tensor


@dataclass(frozen=True)
class Side:
    """One side of a layer along which gated channels lie.

    Attributes:
        parts: its stretches.
        whole: it is one gate's channels, each once and in order.
    """

    parts: tuple[Part, ...]
    whole: bool

    @property
    def size(self) -> int:
        """Channels in all."""
        return sum(len(part.channels) for part in self.parts)

    def factor(self, factors: dict[int, Tensor], images: Tensor) -> Tensor:
        """(images, size) factors; 1 for channels of no gate."""
        if self.whole:
            return factors[self.parts[0].gate]
        ones = images.new_ones(len(images), self.size)
        columns = [
            one if part.gate < 0 else factors[part.gate][:, part.channels.to(images.device)]
            for part, one in zip(self.parts, ones.split([len(part.channels) for part in self.parts], 1), strict=True)
        ]
        return torch.cat(columns, dim=1)

    def index(self, kept: dict[int, Tensor]) -> Tensor:
        """Positions of the channels that are computed, given those of every gate."""
        if self.whole:
            return kept[self.parts[0].gate]
        stays = [
            torch.ones_like(part.channels, dtype=torch.bool)
            if part.gate < 0
            else torch.isin(part.channels, kept[part.gate].cpu())
            for part in self.parts
        ]
        return torch.cat(stays).nonzero()[:, 0].to(next(iter(kept.values())).device)


def find_sides(graph: Graph, wires: Sequence[Wire]) -> dict[tuple[str, str], Side]:
    """(Layer, side) -> where gated channels lie along it, for all that have any."""
    gates = np.full(sum(graph.sizes) + 1, -1)
    for number, wire in enumerate(wires):
        gates[wire.start : wire.stop] = number
    found: dict[tuple[str, str], Side] = {}
    for axis in graph.axes:
        numbers = gates[axis.slots]
        if (numbers < 0).all():
            continue
        edges = np.flatnonzero(np.diff(numbers)) + 1
        parts = tuple(
            Part(int(which[0]), torch.as_tensor(place - (wires[which[0]].start if which[0] >= 0 else 0)))
            for which, place in zip(np.split(numbers, edges), np.split(axis.slots, edges), strict=True)
        )
        wire = wires[numbers[0]]
        found[axis.layer, axis.side] = Side(parts, np.array_equal(axis.slots, np.arange(wire.start, wire.stop)))
    return found
