"""Whole channels, with everything that makes and reads them."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from rlprune.evaluation.sliced import Slices
from rlprune.graph.structure import Graph
from rlprune.graph.surgery import Slicer, prune
from rlprune.methods.units.base import Cutter, Unit
from rlprune.plans.plan import PruningPlan
from rlprune.tracing.selection import Choice
from rlprune.utils.modules import named_tensors, unwrapped


@dataclass(frozen=True)
class Channel(Unit):
    """Whole channels go, in all layers that make or read them; what is left are ordinary, narrower layers.

    Paper: Li et al., Pruning Filters for Efficient ConvNets, 2017, arXiv 1608.08710
    """

    needs: ClassVar[tuple[str, ...]] = ()

    def structure(self, module: nn.Module, graph: Graph, choice: Choice, images: Tensor) -> Graph:
        """See `Unit.structure`."""
        return graph

    def cutter(self, module: nn.Module, graph: Graph) -> Cutter:
        """See `Unit.cutter`."""
        return ChannelCutter(module, graph)


class ChannelCutter(Cutter):
    """Cuts channels; see `Cutter`."""

    def __init__(self, module: nn.Module, graph: Graph) -> None:
        self.module, self.graph = unwrapped(module), graph

    def slices(self) -> Slices:
        """See `Cutter.slices`."""
        return Slicer(self.graph, named_tensors(self.module))

    def cut(self, kept: np.ndarray) -> nn.Module:
        """See `Cutter.cut`."""
        return prune(self.module, self.graph, kept)

    def complete(self, plan: PruningPlan) -> PruningPlan:
        """See `Cutter.complete`; a plan of channels says it all."""
        return plan
