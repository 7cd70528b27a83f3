"""The weights that read cut channels are fitted anew, layer by layer, by least squares.

As in He et al., Channel Pruning for Accelerating Very Deep Neural Networks, 2017, arXiv 1707.06168, and in the pruner
of AMC (He et al., 2018, arXiv 1802.03494).
"""

from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlprune.errors import UserError
from rlprune.evaluation.sliced import norms_of, recalibrating
from rlprune.methods.recovery.base import Cut, Recovery, RepairContext
from rlprune.methods.recovery.base_consumers import (
    CHUNK,
    Consumer,
    channel_dim,
    consumers,
    hooked,
    left,
    watch_dense,
)
from rlprune.utils.memory import all_at_once


@dataclass(frozen=True)
class Reconstruct(Recovery):
    """Every layer that reads cut channels gets new weights, so that it gives what it gave in the dense network.

    From front to back the change D of the weights minimises ‖X D − E‖² + λ ‖D‖², where X is what the layer reads in the
    network that is repaired so far, and E by how much its outputs miss those of the dense network. D = 0 is the layer
    unrepaired, which on the images that are fitted it is therefore never worse than.

    Paper: He et al., Channel Pruning for Accelerating Very Deep Neural Networks, 2017, arXiv 1707.06168

    Attributes:
        rows: output positions that a layer is fitted on, at random from all calibration images, at most.
        ridge: λ as a fraction of the mean square of what the layer reads, times the number of positions.
    """

    needs: ClassVar[tuple[str, ...]] = ("images",)
    rank: ClassVar[int] = 2
    rows: int = 10_000
    ridge: float = 0.01

    def __post_init__(self) -> None:
        if self.rows < 1 or not self.ridge > 0:
            raise UserError(f"reconstruct:rows={self.rows},ridge={self.ridge}: expected at least 1 and more than 0")

    def apply(self, module: nn.Module, cut: Cut, context: RepairContext) -> nn.Module:
        """See `Recovery.apply`. A single pass: a layer is fitted as it is reached, and what comes behind sees that."""
        samples = context.once((Reconstruct, self.rows), lambda: _sample(context, self.rows))
        found = [one for one in consumers(module, cut, context) if not isinstance(one.dense, nn.Conv3d)]
        hooks = [one.layer.register_forward_pre_hook(partial(self._fit, one, samples[one.name])) for one in found]
        # As the network will be run: with batch norm as it is, or as it is measured afterwards.
        norms = norms_of(module) if context.recalibrates else []
        with hooked(hooks), recalibrating(norms) if norms else nullcontext(), all_at_once(context.images):
            module(context.images)
        return module

    def _fit(self, consumer: Consumer, sample: "Sample", _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        layer, weight, first = consumer.layer, consumer.layer.weight, 0
        features = weight[0].numel()
        gram, moment = _zeros(features, features, weight), _zeros(features, len(weight), weight)
        for chunk in inputs[0].split(CHUNK):
            part = slice(first, first + len(chunk))
            read = _at(columns(layer, chunk), sample.places[part]).to(gram)
            made = _at(_flat(layer, consumer.outputs(chunk)), sample.places[part])
            missing = (sample.outputs[part].flatten(0, 1)[:, left(consumer.made, made)] - made).to(gram)
            gram += read.T @ read
            moment += read.T @ missing
            first += len(chunk)
        weight.data += ridge_regression(gram, moment, self.ridge).T.reshape(weight.shape).to(weight)


@dataclass
class Sample:
    """Where the outputs of a layer are compared, and what they are in the dense network.

    Attributes:
        places: (images, points) flat output positions.
        outputs: (images, points, outputs).
    """

    places: Tensor
    outputs: Tensor


def _sample(context: RepairContext, rows: int) -> dict[str, Sample]:
    """For every layer that may read less one day the same number of positions of every calibration image."""
    images, parts = len(context.images), dict[str, list[Tensor]]()
    places: dict[str, Tensor] = {}
    draw = torch.Generator().manual_seed(0)

    def look(name: str, inputs: Tensor, output: Tensor, first: int) -> None:
        flat = _flat(context.module.get_submodule(name), output)
        if name not in places:
            points = min(flat.shape[2], max(1, rows // images))
            places[name] = torch.rand(images, flat.shape[2], generator=draw).argsort(1)[:, :points].to(flat.device)
            parts[name] = []
        at = places[name][first : first + len(output)]
        parts[name].append(_at(flat, at).view(*at.shape, -1))

    watch_dense(context, look)
    return {name: Sample(at, torch.cat(parts[name])) for name, at in places.items()}


def ridge_regression(gram: Tensor, moment: Tensor, ridge: float) -> Tensor:
    """(features, outputs) D that minimises ‖X D − E‖² + λ ‖D‖².

    Args:
        gram: (features, features) XᵀX.
        moment: (features, outputs) XᵀE.
        ridge: λ as a fraction of the mean of the diagonal of XᵀX.
    """
    # Where everything that is read is 0, any λ will do.
    penalty = ridge * gram.diagonal().mean() or 1.0
    regular = gram + penalty * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.cholesky_solve(moment, torch.linalg.cholesky(regular))


def columns(layer: nn.Module, inputs: Tensor) -> Tensor:
    """(images, features, positions) what every output position of a layer reads, in the order of its weights.

    Args:
        layer: linear, or a convolution of one or two dimensions with a single group.
        inputs: that it reads.
    """
    if isinstance(layer, nn.Linear):
        return _flat(layer, inputs)
    assert isinstance(layer, (nn.Conv1d, nn.Conv2d))
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(inputs, layer._reversed_padding_repeated_twice, mode)
    if isinstance(layer, nn.Conv1d):
        one = [(1, *size) for size in (layer.kernel_size, layer.dilation, layer.stride)]
        return F.unfold(padded[:, :, None], one[0], one[1], 0, one[2])
    return F.unfold(padded, layer.kernel_size, layer.dilation, 0, layer.stride)


def _flat(layer: nn.Module, values: Tensor) -> Tensor:
    """(images, channels, positions) of what goes into or comes out of a layer."""
    return values.movedim(channel_dim(layer), 1).reshape(len(values), values.shape[channel_dim(layer)], -1)


def _at(flat: Tensor, places: Tensor) -> Tensor:
    """(images * points, channels) of (images, channels, positions) at some of the positions of every image."""
    some = flat.gather(2, places[:, None].expand(-1, flat.shape[1], -1))
    return some.movedim(1, 2).flatten(0, 1)


def _zeros(rows: int, columns: int, like: Tensor) -> Tensor:
    """In double precision, which sums over many positions need; Apple's devices have none."""
    device = "cpu" if like.device.type == "mps" else like.device
    return torch.zeros(rows, columns, dtype=torch.float64, device=device)
