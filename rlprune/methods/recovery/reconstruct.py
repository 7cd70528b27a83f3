"""The weights that read cut channels are fitted anew, layer by layer, by least squares.

As in He et al., Channel Pruning for Accelerating Very Deep Neural Networks, 2017, arXiv 1707.06168, and in the pruner
of AMC (He et al., 2018, arXiv 1802.03494).
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlprune.errors import UserError
from rlprune.methods.recovery.base import Cut, Recovery, RepairContext
from rlprune.methods.recovery.base_consumers import (
    Consumer,
    channel_dim,
    consumers,
    front_to_back,
    left,
    watch_dense,
)
from rlprune.utils.modules import CONVOLUTIONS, output_sides


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
        """See `Recovery.apply`."""
        samples = context.once((Reconstruct, self.rows), lambda: _sample(context, self.rows))

        def fit(consumer: Consumer, inputs: Tensor) -> None:
            self._fit(consumer, inputs, samples[consumer.name])

        found = [one for one in consumers(module, cut, context) if one.name in samples]
        front_to_back(module, context, found, fit)
        return module

    def _fit(self, consumer: Consumer, inputs: Tensor, sample: "Sample") -> None:
        """Change the weights of a layer by what its outputs are short of."""
        weight = consumer.layer.weight
        read = columns(consumer.layer, inputs, sample.places).to(_exact(weight))
        wanted = sample.outputs[:, left(consumer.made, weight)]
        for constants in (consumer.layer.bias, consumer.added):
            wanted = wanted if constants is None else wanted - constants
        missing = wanted.to(read) - read @ weight.flatten(1).T.to(read)
        weight.data += ridge_regression(read, missing, self.ridge).T.reshape(weight.shape).to(weight)


class Sample(NamedTuple):
    """Where the outputs of a layer are compared, and what they are in the dense network.

    Attributes:
        places: (images, points) flat output positions.
        outputs: (images * points, outputs).
    """

    places: Tensor
    outputs: Tensor


def _sample(context: RepairContext, rows: int) -> dict[str, Sample]:
    """For every layer that may read less one day the same number of positions of every calibration image."""
    places: dict[str, Tensor] = {}
    parts: dict[str, list[Tensor]] = {}
    images, draw = len(context.images), torch.Generator().manual_seed(0)

    def look(name: str, output: Tensor, first: int) -> None:
        flat = _flat(context.module.get_submodule(name), output)
        if name not in places:
            points = min(flat.shape[2], max(1, rows // images))
            places[name] = torch.rand(images, flat.shape[2], generator=draw).argsort(1)[:, :points].to(flat.device)
        parts.setdefault(name, []).append(_at(flat, places[name][first : first + len(output)]))

    whole = watch_dense(context, look)
    return {name: Sample(places[name], torch.cat(parts[name])) for name in whole}


def ridge_regression(read: Tensor, missing: Tensor, ridge: float) -> Tensor:
    """(features, outputs) D that minimises ‖X D − E‖² + λ ‖D‖².

    Args:
        read: (rows, features) X.
        missing: (rows, outputs) E.
        ridge: λ as a fraction of the mean of the diagonal of XᵀX.

    Raises:
        UserError: so little that rounding decides.
    """
    gram = read.T @ read
    # Where everything that is read is 0, any λ will do.
    gram.diagonal().add_(ridge * float(gram.diagonal().mean()) or 1.0)
    factor, wrong = torch.linalg.cholesky_ex(gram)
    if wrong:
        raise UserError(f"reconstruct:ridge={ridge} is too small for what the layers read: take more, such as 0.01")
    return torch.cholesky_solve(read.T @ missing, factor)


def columns(layer: nn.Module, inputs: Tensor, places: Tensor) -> Tensor:
    """(images * points, features) what some of a layer's output positions read, in the order of its weights.

    Args:
        layer: linear, or a convolution with a single group.
        inputs: that it reads.
        places: (images, points) flat output positions.
    """
    if not isinstance(layer, CONVOLUTIONS):
        return _at(_flat(layer, inputs), places)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(inputs, layer._reversed_padding_repeated_twice, mode)
    sides, dims = padded.shape[2:], len(layer.kernel_size)
    made = output_sides(sides, layer.kernel_size, layer.stride, (0,) * dims, layer.dilation)
    corners, offsets, rest, step = torch.zeros_like(places), places.new_zeros(1), places, 1
    # The last dimension changes first.
    for dim in reversed(range(dims)):
        corners = corners + rest % made[dim] * layer.stride[dim] * step
        window = torch.arange(layer.kernel_size[dim], device=places.device) * layer.dilation[dim] * step
        offsets = (window[:, None] + offsets).flatten()
        rest, step = rest // made[dim], step * sides[dim]
    found = _at(padded.flatten(2), (corners[:, :, None] + offsets).flatten(1))
    # (images, points, window, channels) -> channels first
    return found.view(*places.shape, len(offsets), -1).transpose(2, 3).flatten(2).flatten(0, 1)


def _flat(layer: nn.Module, values: Tensor) -> Tensor:
    """(images, channels, positions) of what goes into or comes out of a layer."""
    return values.movedim(channel_dim(layer), 1).reshape(len(values), values.shape[channel_dim(layer)], -1)


def _at(flat: Tensor, places: Tensor) -> Tensor:
    """(images * points, channels) of (images, channels, positions) at (images, points) of the positions."""
    some = flat.gather(2, places[:, None].expand(-1, flat.shape[1], -1))
    return some.movedim(1, 2).flatten(0, 1)


def _exact(like: Tensor) -> Tensor:
    """An example of double precision, which sums over many positions need; Apple's devices have none."""
    return torch.zeros(0, dtype=torch.float64, device="cpu" if like.device.type == "mps" else like.device)
