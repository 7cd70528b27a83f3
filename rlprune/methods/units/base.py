"""Units say what goes of a network: whole channels, or parts of its layers. What they share."""

from abc import abstractmethod
from typing import ClassVar, Protocol

import numpy as np
from torch import Tensor, nn

from rlprune.evaluation.sliced import Slices
from rlprune.graph.structure import Graph
from rlprune.plans.plan import PruningPlan
from rlprune.tracing.selection import Choice


class Cutter(Protocol):
    """Cuts one network whose weights do not change any more."""

    @abstractmethod
    def slices(self) -> Slices:
        """What evaluations put in the place of the network's tensors."""

    @abstractmethod
    def cut(self, kept: np.ndarray) -> nn.Module:
        """A physically smaller copy.

        Args:
            kept: (all groups' channels,) bool, True where one stays.
        """

    @abstractmethod
    def complete(self, plan: PruningPlan) -> PruningPlan:
        """A plan with all that it takes to cut the network by it again."""


class Unit(Protocol):
    """What goes of a network; a frozen dataclass whose fields are its settings.

    Attributes:
        needs: what it looks at besides weights, in words.
    """

    needs: ClassVar[tuple[str, ...]]

    @abstractmethod
    def structure(self, module: nn.Module, graph: Graph, choice: Choice, images: Tensor) -> Graph:
        """The groups whose units can go.

        Args:
            module: the dense network; its weights may still be untrained.
            graph: its groups of coupled channels.
            choice: which layers may be cut.
            images: an example of its input.

        Raises:
            UserError: there is none in this network.
        """

    @abstractmethod
    def cutter(self, module: nn.Module, graph: Graph) -> Cutter:
        """What cuts the trained network.

        Args:
            module: the dense network.
            graph: from `structure`.
        """
