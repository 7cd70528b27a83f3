"""Repairs give back some of what a cut takes, without any training. What they share."""

from abc import abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from rlprune import registry
from rlprune.graph.structure import WHOLE, Graph
from rlprune.graph.surgery import prune
from rlprune.utils.modules import unwrapped

T = TypeVar("T")
USUAL = "bn"
"""What is done unless somebody asks for more."""


@dataclass(frozen=True)
class Cut:
    """What was cut.

    Attributes:
        graph: structure of the dense network.
        kept: (all groups' channels,) bool, True where a channel stays.
    """

    graph: Graph
    kept: np.ndarray

    def stays(self, layer: str, side: str) -> np.ndarray | None:
        """(channels,) bool of one side of a layer, ``"out"`` or ``"in"``; None where it is never cut."""
        # One entry more, always True, is what index -1 (WHOLE) of an axis points at.
        assert WHOLE == -1
        stays = np.append(self.kept, True)
        found = (axis for axis in self.graph.axes if (axis.layer, axis.side) == (layer, side))
        return next((stays[axis.slots] for axis in found), None)


class RepairContext:
    """What a repair may look at besides the cut network.

    Args:
        module: the dense network in eval mode; left as it is.
        graph: its structure.
        images: (N, C, H, W) calibration images on its device.
        recalibrates: whether batch norm is recalibrated at the end.
    """

    def __init__(self, module: nn.Module, graph: Graph, images: Tensor, recalibrates: bool) -> None:
        self.module, self.graph, self.images, self.recalibrates = module, graph, images, recalibrates
        self._known: dict[Hashable, Any] = {}

    def once(self, key: Hashable, look: Callable[[], T]) -> T:
        """What is the same for every cut of the network, such as what its layers give: looked for once.

        Args:
            key: by which it is remembered.
            look: finds it.
        """
        if key not in self._known:
            self._known[key] = look()
        found: T = self._known[key]
        return found


class Recovery(Protocol):
    """Repairs a cut network without training; a frozen dataclass whose fields are its settings.

    Attributes:
        needs: what it looks at besides weights, in words.
        rank: of several repairs the one of the lowest rank comes first, in whatever order they are named.
    """

    needs: ClassVar[tuple[str, ...]]
    rank: ClassVar[int]

    @abstractmethod
    def apply(self, module: nn.Module, cut: Cut, context: RepairContext) -> nn.Module:
        """Repair a network; what it cannot repair it leaves as it is.

        Args:
            module: the smaller network in eval mode, with tensors of its own; it may be changed in place. No gradients
                flow.
            cut: what of the dense network is in it.
            context: the dense network and images.

        Returns:
            The repaired network, of the same layers.

        Raises:
            UserError: there is not enough memory, or the images are too few.
        """


class Repairs:
    """The repairs that were asked for, ready for any cut of one dense network.

    Args:
        text: their names, maybe with settings: ``merge,reconstruct:ridge=0.01,bn``.
        module: the dense network; left as it is.
        graph: its structure.
        images: (N, C, H, W) calibration images on its device.

    Raises:
        UserError: there is no such repair, or no such setting.
    """

    def __init__(self, text: str, module: nn.Module, graph: Graph, images: Tensor) -> None:
        made = [(name, registry.make("recovery", name)) for name in registry.split(text)]
        self.methods: list[Recovery] = sorted((method for _, method in made), key=lambda method: method.rank)
        recalibrates = any(name.partition(":")[0] == USUAL for name, _ in made)
        self.context = RepairContext(unwrapped(module), graph, images, recalibrates)

    def cut(self, kept: np.ndarray) -> nn.Module:
        """A smaller copy of the network, repaired, in eval mode.

        Args:
            kept: (all groups' channels,) bool, True where a channel stays.

        Raises:
            UserError: see `Recovery.apply`; or a group keeps no channel and its block is not taken out.
        """
        module = prune(self.context.module, self.context.graph, kept).eval()
        with torch.no_grad():
            for method in self.methods:
                module = method.apply(module, Cut(self.context.graph, kept), self.context)
        return module
