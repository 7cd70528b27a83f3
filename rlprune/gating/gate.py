"""Gates: what is known of the importance of a group's channels, and where in a network a gate can sit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.errors import UserError
from rlprune.graph.structure import Graph, Group

Choose = Callable[[int, Tensor], tuple[Tensor, Tensor]]
"""Number of a gate, (images, inputs) pooled features -> (images, channels) masks and factors."""
START = 0.01
"""Standard deviation of a predictor's first weights: every channel starts about as important as any other."""


@dataclass(frozen=True)
class KeepRatios:
    """(images,) keep ratios of one gate, of the runtime agent and of the static agent."""

    runtime: np.ndarray
    static: np.ndarray


Decide = Callable[[int, Tensor, Tensor], KeepRatios | None]
"""Number of a gate, (images, inputs) pooled features, (images, channels) importance -> how much runs; None for all."""


def keep_all(number: int, pooled: Tensor, importance: Tensor) -> None:
    """Everything runs."""


class Gate(nn.Module):
    """What is known of the importance of a group's channels.

    Args:
        inputs: features of the layer's input.
        channels: of the group in the dense network.
        predicts: whether it looks at the image; otherwise every channel is as important for all of them.

    Attributes:
        predictor: one linear layer from the pooled input.
        scale: (channels,) learned static importance, which scales the features too.
        prior: (channels,) with mean 1. Rankings are of importance times prior, so that the first are a criterion's.
        stored: (channels,) bool, the ones that are still there.
    """

    prior: Tensor
    stored: Tensor

    def __init__(self, inputs: int, channels: int, predicts: bool) -> None:
        super().__init__()
        self.predictor = nn.Linear(inputs, channels) if predicts else None
        if self.predictor is not None:
            nn.init.normal_(self.predictor.weight, std=START)
            nn.init.ones_(self.predictor.bias)
        self.scale = nn.Parameter(torch.ones(channels))
        self.register_buffer("prior", torch.ones(channels))
        self.register_buffer("stored", torch.ones(channels, dtype=torch.bool))
        self._stays: Tensor | None = None

    @property
    def stays(self) -> Tensor | None:
        """Positions of the channels that are still there; None for all."""
        if self._stays is None:
            self._stays = self.stored.nonzero()[:, 0]
        return None if len(self._stays) == len(self.stored) else self._stays

    def importance(self, pooled: Tensor) -> Tensor:
        """(images, channels) of these images, around 1."""
        if self.predictor is None:
            return torch.ones(len(pooled), len(self.scale), device=pooled.device)
        found: Tensor = self.predictor(pooled)
        return found

    def runtime_scores(self, importance: Tensor) -> Tensor:
        """(images, channels) that rank the channels for these images."""
        return importance * self.prior if self.predictor is not None else self.static_scores().expand_as(importance)

    def static_scores(self) -> Tensor:
        """(channels,) that rank the channels for all images."""
        return self.scale.abs() * self.prior


@dataclass(frozen=True)
class Wire:
    """Where a gate sits.

    Attributes:
        group: position of its group in the graph.
        layer: whose channels it chooses, and before which it looks.
        start, stop: of its channels in the list of all groups' channels.
    """

    group: int
    layer: str
    start: int
    stop: int


def possible_wires(module: nn.Module, graph: Graph) -> tuple[Wire, ...]:
    """The groups that can be chosen image by image: those that one convolution fills and nothing adds to.

    Where several layers meet in a sum, the first to run would have to decide for all of them. Whether such a gate is
    sound is another question, see `rlprune.gating.agreement.sound_wires`.

    Raises:
        UserError: there is none.
    """
    layers = dict(module.named_modules())
    found = [
        _wire(graph, number, filled[0])
        for number, group in enumerate(graph.groups)
        if len(filled := _filling(layers, graph, group)) == 1 and _is_plain(layers, group)
    ]
    if not found:
        raise UserError("no layer of this network can be skipped image by image: none fills a group of its own")
    return tuple(found)


def wires_of(graph: Graph, layers: Sequence[str]) -> tuple[Wire, ...]:
    """Gates where they were before.

    Args:
        graph: structure of the network, dense or cut.
        layers: one a gate, in the order in which the network comes to them.

    Raises:
        LookupError: one of them fills no group.
    """
    groups = {layer: number for number, group in enumerate(graph.groups) for layer in group.producers}
    return tuple(_wire(graph, groups[layer], layer) for layer in layers)


def _wire(graph: Graph, number: int, layer: str) -> Wire:
    group = graph.groups[number]
    return Wire(number, layer, group.start, group.start + group.channels)


def make_gates(network: nn.Module, wires: Sequence[Wire], scores: np.ndarray, predicts: bool) -> list[Gate]:
    """A gate for every place.

    Args:
        network: the dense network.
        wires: the places.
        scores: (all groups' channels,) from a criterion, in any unit.
        predicts: whether the gates look at the image.
    """
    gates = []
    for wire in wires:
        prior = torch.as_tensor(scores[wire.start : wire.stop], dtype=torch.float32)
        gates.append(Gate(inputs_of_layer(network, wire.layer), len(prior), predicts))
        gates[-1].prior.copy_(prior / prior.mean().clamp_min(1e-12))
    return gates


def _filling(layers: dict[str, nn.Module], graph: Graph, group: Group) -> list[str]:
    """The layers that compute a group's channels from others, and not each from itself as depthwise ones do."""
    return [name for name in graph.layers_of(group) if getattr(layers.get(name), "groups", 1) == 1]


def _is_plain(layers: dict[str, nn.Module], group: Group) -> bool:
    """Whether nothing but convolutions, batch norms and linear layers touches a group."""
    producers, consumers = ([layers.get(name) for name in names] for names in (group.producers, group.consumers))
    made = all(isinstance(layer, (nn.Conv2d, nn.BatchNorm2d)) for layer in producers)
    return made and group.width == 1 and all(isinstance(layer, (nn.Conv2d, nn.Linear)) for layer in consumers)


def plain(tensor: Tensor) -> np.ndarray:
    """The same numbers without gradients, off the device."""
    values: np.ndarray = tensor.detach().cpu().numpy()
    return values


def pool(features: Tensor) -> Tensor:
    """(images, channels) means over all positions."""
    return features.mean(tuple(range(2, features.ndim))) if features.ndim > 2 else features


def inputs_of_layer(network: nn.Module, layer: str) -> int:
    """Input channels of one of a network's convolutions."""
    found = network.get_submodule(layer)
    assert isinstance(found, nn.Conv2d)
    return found.in_channels
