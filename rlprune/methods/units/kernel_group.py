"""Input slices inside groups of a layer's filters (TMI-GKP; Zhong et al., Revisit Kernel Pruning with Lottery Regulated
Grouped Convolutions, ICLR 2022)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.errors import UserError
from rlprune.evaluation.sliced import Slices
from rlprune.graph.kernel_structure import kernel_structure
from rlprune.graph.kernels import KernelCut, cut_kernels, groups_of, why_whole
from rlprune.graph.structure import Graph
from rlprune.methods.units.base import Cutter, Unit
from rlprune.methods.units.base_grouping import FEATURES, Groups, equal_groups
from rlprune.methods.units.base_slices import SliceOrders
from rlprune.methods.units.base_snapshots import Snapshots
from rlprune.methods.units.base_vote import vote
from rlprune.plans.plan import PruningPlan
from rlprune.tracing.selection import Choice
from rlprune.utils.modules import CONVOLUTIONS, named_tensors, unwrapped

ASKED = "the network asks for more of it than its output, such as its weights"


@dataclass(frozen=True)
class KernelGroup(Unit):
    """Every filter of a group reads the same few inputs: a convolution becomes gather, grouped convolution, scatter.

    Every group of a layer keeps as many of its input slices, so that the layer stays dense; the layers around it do not
    change. Slices stay that are least alike; the criterion of channels has no say.

    Paper: Zhong et al., Revisit Kernel Pruning with Lottery Regulated Grouped Convolutions, ICLR 2022

    Attributes:
        groups: of the filters of each layer; where these make no such groups, the next smaller number that they do.
        snapshots: folder of weights on the way of the training as safetensors files, by which the grouping of every
            layer is chosen from three; without them it is that by kernel principal components.
    """

    needs: ClassVar[tuple[str, ...]] = ("snapshots, if there are any",)
    groups: int = 8
    snapshots: str = ""

    def __post_init__(self) -> None:
        if self.groups < 2:
            raise UserError(f"unit kernel-group: groups is {self.groups}, expected at least 2")

    def structure(self, module: nn.Module, graph: Graph, choice: Choice, images: Tensor) -> Graph:
        """See `Unit.structure`; all convolutions that are no grouped ones yet, whatever the size of their kernels."""
        if choice.declared:
            raise UserError("--group declares groups of channels: leave it out where kernels go")
        module = unwrapped(module)
        layers = [name for name in graph.layers if isinstance(module.get_submodule(name), CONVOLUTIONS)]
        choice.check(layers)
        reasons = {name: choice.why_not([name]) or why_whole(module, name, self.groups) for name in layers}
        reasons |= dict.fromkeys(
            self._looked_into(module, [name for name in layers if not reasons[name]], images), ASKED
        )
        if not (inputs := {name: _inputs(module, name) for name, why in reasons.items() if why is None}):
            told = "; ".join(f"{name}: {why}" for name, why in list(reasons.items())[:3])
            raise UserError(f"no kernels of this network can be cut ({told or 'it has no convolutions'})")
        if self.snapshots:
            Snapshots(self.snapshots, {name: module.get_submodule(name) for name in inputs})
        return kernel_structure(graph, inputs, {name: why for name, why in reasons.items() if why})

    def _looked_into(self, module: nn.Module, layers: list[str], images: Tensor) -> list[str]:
        """Layers without which the network does not run when something that computes the same is in their place."""
        if not layers or _runs(module, {name: self._any_cut(module, name) for name in layers}, images):
            return []
        return [name for name in layers if not _runs(module, {name: self._any_cut(module, name)}, images)]

    def _any_cut(self, module: nn.Module, name: str) -> KernelCut:
        filters = len(module.get_parameter(f"{name}.weight"))
        groups = groups_of(filters, self.groups)
        size = filters // groups
        return KernelCut(
            tuple(tuple(range(start, start + size)) for start in range(0, filters, size)), ((0,),) * groups
        )

    def cutter(self, module: nn.Module, graph: Graph) -> Cutter:
        """See `Unit.cutter`."""
        return KernelCutter(module, graph, self)


class KernelCutter(Cutter):
    """Cuts kernels; groups the filters of a layer and orders its slices when they are asked for first.

    Args:
        module: the trained network.
        graph: its layers as groups of slices.
        unit: settings.
    """

    def __init__(self, module: nn.Module, graph: Graph, unit: KernelGroup) -> None:
        self.module, self.graph, self.unit = unwrapped(module), graph, unit
        layers = {group.name: self.module.get_submodule(group.name) for group in graph.groups}
        self.snapshots = Snapshots(unit.snapshots, layers) if unit.snapshots else None
        self.weights = {name: layer.get_parameter("weight").detach() for name, layer in layers.items()}
        self.grouping, self.one = cache(self._grouping), cache(self._one)
        self._orders = cache(self._ordered)

    def slices(self) -> Slices:
        """See `Cutter.slices`."""
        return MaskedKernels(self)

    def cut(self, kept: np.ndarray) -> nn.Module:
        """See `Cutter.cut`."""
        return cut_kernels(self.module, self.cuts(kept))

    def complete(self, plan: PruningPlan) -> PruningPlan:
        """See `Cutter.complete`: with the filters of every group and the slices that they keep."""
        places = {name: tuple(range(len(kept))) for name, kept in plan.kept.items()}
        return replace(plan, kept=places, kernels=self.cuts(plan.mask(self.graph)))

    def cuts(self, kept: np.ndarray) -> dict[str, KernelCut]:
        """Layer -> what stays, of (all groups' slices,) bool, whose numbers alone count; without those that stay whole.

        Raises:
            UserError: a layer keeps no slice.
        """
        counts = self.graph.counts_of(kept)
        self.graph.taken_out(counts)
        wanted = zip(self.graph.groups, counts.tolist(), strict=True)
        return {group.name: self.one(group.name, count) for group, count in wanted if count < group.channels}

    def _one(self, layer: str, count: int) -> KernelCut:
        """What a layer keeps if every group keeps so many slices."""
        return KernelCut(self.grouping(layer), tuple(orders.kept(count) for orders in self._orders(layer)))

    def _ordered(self, layer: str) -> list[SliceOrders]:
        weights = self.weights[layer]
        return [SliceOrders(weights[list(filters)]) for filters in self.grouping(layer)]

    def _grouping(self, layer: str) -> Groups:
        """The groups of a layer's filters: chosen by the snapshots, or by kernel components."""
        filters = _rows(self.weights[layer])
        number = groups_of(len(filters), self.unit.groups)
        if self.snapshots is None:
            first, *_ = FEATURES.values()
            return equal_groups(first(filters, number), number)
        candidates = [equal_groups(features(filters, number), number) for features in FEATURES.values()]
        return candidates[vote(filters, [_rows(then) for then in self.snapshots.weights(layer)], candidates)]


class MaskedKernels(Slices):
    """The dense tensors with zeros in the place of kernels that go: the network then computes what is left of it.

    Its layers stay dense, for on most machines a dense convolution is faster than one of many small groups.

    Args:
        cutter: says which go.
    """

    def __init__(self, cutter: KernelCutter) -> None:
        self.cutter = cutter
        self.state = {name: tensor.detach() for name, tensor in named_tensors(cutter.module).items()}

    def slices(self, kept: np.ndarray) -> Mapping[str, Tensor]:
        """See `rlprune.evaluation.sliced.Slices.slices`."""
        return self.state | {f"{layer}.weight": self._masked(layer, cut) for layer, cut in self._cuts(kept)}

    def features(self, kept: np.ndarray) -> Mapping[str, int]:
        """See `rlprune.evaluation.sliced.Slices.features`: no channel goes."""
        return {}

    def _cuts(self, kept: np.ndarray) -> list[tuple[str, KernelCut]]:
        return list(self.cutter.cuts(kept).items())

    def _masked(self, layer: str, cut: KernelCut) -> Tensor:
        weight = self.state[f"{layer}.weight"]
        stays = cut.mask(weight.shape[1]).to(weight.device)
        return weight * stays.view(*stays.shape, *[1] * (weight.dim() - 2))


def _runs(module: nn.Module, cuts: Mapping[str, KernelCut], images: Tensor) -> bool:
    """Whether a network runs with cuts."""
    with torch.inference_mode():
        try:
            cut_kernels(module, cuts).eval()(images)
        # Anybody's code runs here.
        except Exception:
            return False
    return True


def _inputs(module: nn.Module, name: str) -> int:
    return int(module.get_parameter(f"{name}.weight").shape[1])


def _rows(weights: Tensor) -> np.ndarray:
    """(filters, weights of each) float64."""
    return weights.flatten(1).double().cpu().numpy()
