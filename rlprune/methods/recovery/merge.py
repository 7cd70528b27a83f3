"""Neuron merging (Kim et al., 2020, arXiv 2010.13160): a kept filter speaks for a similar one that was cut."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.errors import UserError
from rlprune.graph.structure import Graph
from rlprune.methods.recovery.base import Cut, Recovery, RepairContext
from rlprune.methods.recovery.base_consumers import Consumer, consumers
from rlprune.methods.recovery.base_paths import StraightPath, straight_paths
from rlprune.utils.modules import NORMS


@dataclass(frozen=True)
class Merge(Recovery):
    """What read a cut channel reads the most similar kept one instead, scaled.

    A layer and the batch norm behind it make z = v·x + d of what the layer reads. A cut channel p is taken to be
    S z_k + B, where S = ‖v_p‖ / ‖v_k‖ and B = d_p − S d_k. Whatever multiplied p is added, S times, to what multiplies
    k; what B gives on average, z being as normal as batch norm makes it, goes where `bias` puts its constants. Where p
    is a multiple of k, batch norm included, the network is the same as before.

    k has the smallest sum of 1 − cos(v_p, v_k) and of |B| in standard deviations of p, weighted. Without batch norm
    the bias counts as one more weight of the filter, as in the paper.

    It applies where the channels of a single layer go to layers that read them through ReLU, pooling and the like;
    channels of residual sums and depthwise convolutions, and those behind other activations, stay as they are.

    Paper: Kim et al., Neuron Merging: Compensating for Pruned Neurons, 2020, arXiv 2010.13160

    Claim: VGG-16 on CIFAR-10 without 64 % of its parameters has 93.16 instead of 88.70 % before any fine-tuning.

    Attributes:
        threshold: cosine below which no kept filter is similar enough.
        share: weight of the cosine, the rest is that of B.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    rank: ClassVar[int] = 1
    threshold: float = 0.1
    share: float = 0.85

    def __post_init__(self) -> None:
        if not (0 <= self.threshold <= 1 and 0 <= self.share <= 1):
            raise UserError(f"merge:threshold={self.threshold},share={self.share}: expected numbers from 0 to 1")

    def apply(self, module: nn.Module, cut: Cut, context: RepairContext) -> nn.Module:
        """See `Recovery.apply`."""
        readers = {consumer.name: consumer for consumer in consumers(module, cut, context)}
        paths = straight_paths(context)
        affines = context.once(Affine, lambda: [affine(context.module, cut.graph, path) for path in paths])
        for path, channels in zip(paths, affines, strict=True):
            kept = cut.graph.split(cut.kept)[path.number]
            if kept.all() or not kept.any():
                continue
            pairs = self.pairs(channels, kept, path)
            # In a block that is taken out nobody reads any more.
            for name in path.read.keys() & readers.keys():
                _hand_over(readers[name], path.read[name], pairs)
        return module

    def pairs(self, channels: "Affine", kept: np.ndarray, path: StraightPath) -> "Pairs":
        """Which kept channel speaks for which.

        Args:
            channels: what the channels are.
            kept: (channels,) bool.
            path: of the channels.
        """
        gone, stay = (torch.from_numpy(np.flatnonzero(which)) for which in (~kept, kept))
        rows, shifts = channels.rows, channels.shifts
        if channels.deviations is None:
            rows, shifts = torch.cat([rows, shifts[:, None]], 1), torch.zeros_like(shifts)
        lengths = rows.norm(dim=1)
        cosines = (rows[gone] @ rows[stay].T) / (lengths[gone][:, None] * lengths[stay]).clamp(min=1e-30)
        scales = lengths[gone][:, None] / lengths[stay].clamp(min=1e-30)
        biases = channels.shifts[gone][:, None] - scales * channels.shifts[stay]
        distances = self.share * (1 - cosines)
        if channels.deviations is not None:
            distances += (1 - self.share) * biases.abs() / channels.deviations[gone][:, None].clamp(min=1e-30)
        distances[cosines < max(self.threshold, 1e-6)] = torch.inf
        best, choice = distances.min(1)
        found = torch.isfinite(best)
        gone, choice, take = gone[found], choice[found], torch.arange(len(best))[found]
        pairs = Pairs(gone, stay[choice], scales[take, choice], biases[take, choice], torch.zeros(0))
        return pairs._replace(constants=_on_average(pairs, channels, path))


class Affine(NamedTuple):
    """What channels are before their activation: z = rows · x + shifts.

    Attributes:
        rows: (channels, weights of each).
        shifts: (channels,).
        means, deviations: (channels,) of z, as batch norm makes them; None where there is none.
    """

    rows: Tensor
    shifts: Tensor
    means: Tensor | None = None
    deviations: Tensor | None = None


class Pairs(NamedTuple):
    """Cut channels and the kept ones that speak for them.

    Attributes:
        gone, stay: (pairs,) channels of the group.
        scales: (pairs,) S.
        biases: (pairs,) B.
        constants: (pairs,) what B gives on average behind the activation.
    """

    gone: Tensor
    stay: Tensor
    scales: Tensor
    biases: Tensor
    constants: Tensor


def affine(module: nn.Module, graph: Graph, path: StraightPath) -> Affine:
    """What the channels of a path are in the dense network, in double precision."""
    weight, dim = graph.weights[path.producer]
    bias, made = module.get_submodule(path.producer).bias, torch.from_numpy(path.made)
    rows = _exact(module.get_parameter(weight.name)).movedim(dim, 0).flatten(1)[made]
    shifts = torch.zeros(len(made), dtype=torch.float64) if bias is None else _exact(bias)[made]
    if path.norm is None:
        return Affine(rows, shifts)
    norm = module.get_submodule(path.norm)
    assert isinstance(norm, NORMS)
    mean, variance = _exact(norm.running_mean)[made], _exact(norm.running_var)[made]
    gamma, beta = torch.ones_like(mean), torch.zeros_like(mean)
    if norm.weight is not None:
        gamma, beta = _exact(norm.weight)[made], _exact(norm.bias)[made]
    slopes = gamma / (variance + norm.eps).sqrt()
    return Affine(slopes[:, None] * rows, slopes * (shifts - mean) + beta, beta, gamma.abs())


def _on_average(pairs: Pairs, channels: Affine, path: StraightPath) -> Tensor:
    """(pairs,) means of f(S z + B) − S f(z) for the kept channels' z; 0 where nothing is known of z but f bends."""
    if channels.means is None or channels.deviations is None:
        return path.up * pairs.biases if math.isclose(path.up, path.down) else torch.zeros_like(pairs.biases)
    means, deviations = channels.means[pairs.stay], channels.deviations[pairs.stay]
    with_bias = _mean_output(pairs.scales * means + pairs.biases, pairs.scales * deviations, path)
    return with_bias - pairs.scales * _mean_output(means, deviations, path)


def _mean_output(means: Tensor, deviations: Tensor, path: StraightPath) -> Tensor:
    """The mean of f of normal numbers."""
    deviations = deviations.clamp(min=1e-12)
    at = means / deviations
    above = means * torch.special.ndtr(at) + deviations * (-at.square() / 2).exp() / math.sqrt(2 * math.pi)
    return path.up * above - path.down * (above - means)


def _hand_over(consumer: Consumer, places: np.ndarray, pairs: Pairs) -> None:
    """Let kept channels speak for others in a layer that reads them.

    Args:
        consumer: the layer.
        places: (channels, times) where the channels are in its inputs.
        pairs: which for which.
    """
    weight, where = consumer.layer.weight, torch.from_numpy(np.cumsum(consumer.read) - 1)
    there = torch.from_numpy(places)
    taken, times = there[pairs.gone].flatten(), there.shape[1]
    lost = _exact(consumer.dense.weight)[torch.from_numpy(consumer.made)][:, taken].movedim(1, 0)
    # (pairs * times, outputs, ...)
    factors = pairs.scales.repeat_interleave(times).view(-1, *[1] * (lost.dim() - 1))
    more = _exact(weight).movedim(1, 0).index_add(0, where[there[pairs.stay].flatten()], factors * lost)
    weight.data = more.movedim(0, 1).to(weight)
    if consumer.takes_constants:
        constants = pairs.constants.repeat_interleave(times) @ lost.unsqueeze(-1).flatten(2).sum(2)
        consumer.add(constants.to(weight))


def _exact(values: Any) -> Tensor:
    """In double precision, which only CPUs always have."""
    assert isinstance(values, Tensor)
    return values.detach().cpu().double()
