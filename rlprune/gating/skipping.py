"""A network that really skips: of every layer only the channels an image needs are computed.

Before a gated layer runs, its weights for the chosen outputs and for the inputs that are there are gathered, and the
layer runs with these alone. Several images at once share the union of their channels, and what an image does not need
is zero for it, as under masks. The union grows with the number of images and with how much they differ, so that many
images go in groups of similar ones; into how many, or whether under masks, is measured at first use.
"""

import math
import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlprune.errors import UserError
from rlprune.gating.controller import KeepController
from rlprune.gating.network import GatedNetwork, Side
from rlprune.gating.single_image import Quick
from rlprune.utils.modules import output_sides

REPEATS = 3
"""Timings of each way."""
SIZES = (4, 16)
"""Images of a group, where there is more than one group."""
FEW = 8
"""Pixels, of all images together, up to which PyTorch's convolutions take several times longer than a product."""
LARGE = 1 << 20
"""Weights of a linear layer from which on to gather them one by one takes longer than to compute with all of them."""


class SkippingNetwork(nn.Module):
    """What `rlprune.load` gives for a network with gates; for inference.

    Args:
        gated: the network, its permanently removed channels gone, with `runtime`.

    Attributes:
        gated: as given; running it masks and skips nothing.
    """

    def __init__(self, gated: GatedNetwork) -> None:
        super().__init__()
        self.gated = gated
        layers = dict(gated.network.named_modules())
        names = dict.fromkeys(layer for layer, _ in gated.sides)
        self._parts = [_Gathering(gated, layers[name], name) for name in names]
        self._groups: dict[tuple[int, ...], int] = {}
        self._quick: Quick | None = None

    def set_budget(self, budget: float) -> None:
        """Aim at another mean of MACs per image, relative to the dense network, from the next image on.

        Args:
            budget: within `budgets`.

        Raises:
            UserError: it was never measured there.
        """
        low, high = self.budgets
        if not low <= budget <= high:
            raise UserError(f"a budget of {budget:g} is out of reach: this network serves {low:.3g} to {high:.3g}")
        self.runtime.budget = budget

    @property
    def runtime(self) -> KeepController:
        """The agent."""
        assert isinstance(self.gated.runtime, KeepController)
        return self.gated.runtime

    @property
    def budgets(self) -> tuple[float, float]:
        """The lowest and the highest budget it can be told."""
        points = self.runtime.budgets
        return float(points.min()), float(points.max())

    def forward(self, images: Tensor) -> Tensor:
        """(images, classes) logits.

        In training mode, and where that is faster, all channels are computed and those an image does not need are
        zeroed, which gives the same.
        """
        if self.training or torch.compiler.is_compiling():
            return self._masked(images)
        if len(images) == 1:
            return self.gathered(images)
        if (shape := tuple(images.shape)) not in self._groups:
            self._groups[shape] = self._fastest(images)
        return self._in_groups(images, self._groups[shape])

    def train(self, mode: bool = True) -> "SkippingNetwork":
        """As of any module; batch norms are read anew afterwards."""
        self._forget()
        super().train(mode)
        return self

    def _masked(self, images: Tensor) -> Tensor:
        logits: Tensor = self.gated(images)
        return logits

    def _in_groups(self, images: Tensor, groups: int) -> Tensor:
        """As `forward`, in so many groups, or all together under masks where there are none."""
        return self.grouped(images, groups) if groups else self._masked(images)

    def grouped(self, images: Tensor, groups: int) -> Tensor:
        """(images, classes) logits, for every group computing the union of the channels that its images need.

        Images that are about as bright look alike to the first gates, and these foretell what the later ones keep.
        """
        if groups == 1:
            return self.gathered(images)
        order = images.mean(dim=(1, 2, 3)).argsort()
        logits = torch.cat([self.gathered(images[part]) for part in order.chunk(groups)])
        return torch.empty_like(logits).index_copy(0, order, logits)

    def gathered(self, images: Tensor) -> Tensor:
        """(images, classes) logits, computing the union of the channels that these images need."""
        self.gated.kept = {}
        self.gated.choose = self._choose if len(images) == 1 and images.device.type == "cpu" else None
        for part in self._parts:
            part.layer.forward = part.run  # type: ignore[method-assign]
        try:
            with torch.no_grad():
                return self._masked(images)
        finally:
            self.gated.kept = self.gated.choose = None
            for part in self._parts:
                del part.layer.forward

    def _choose(self, number: int, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """For a single image."""
        if self._quick is None:
            self._quick = Quick(self.gated, self.runtime)
        mask, factor = self._quick.decide(number, pooled[0].numpy())
        return torch.from_numpy(mask)[None], torch.from_numpy(factor)[None]

    def _apply(self, *args: Any, **kwargs: Any) -> "SkippingNetwork":
        """Moved to another device or type, a module has other tensors."""
        super()._apply(*args, **kwargs)
        self._forget()
        return self

    def _forget(self) -> None:
        """What was read from the tensors."""
        self._quick = None
        for part in self._parts:
            part.affine = None

    def _fastest(self, images: Tensor) -> int:
        """The number of groups that takes the least time for so many images."""
        seconds: dict[int, list[float]] = {0: [], 1: []}
        seconds |= {math.ceil(len(images) / size): [] for size in SIZES}
        for _ in range(REPEATS):
            for groups, times in seconds.items():
                start = time.perf_counter()
                with torch.no_grad():
                    self._in_groups(images, groups)
                if images.is_cuda:
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - start)
        return min(seconds, key=lambda groups: statistics.median(seconds[groups]))


class _Gathering:
    """Runs one layer with the channels that are there and the channels that are wanted.

    Args:
        gated: the network.
        layer: one of its layers along whose sides gated channels lie.
        name: of the layer.
    """

    def __init__(self, gated: GatedNetwork, layer: nn.Module, name: str) -> None:
        self.gated, self.layer = gated, layer
        self.out, self.into = gated.sides.get((name, "out")), gated.sides.get((name, "in"))
        self.affine: Tensor | None = None
        runs = {nn.Conv2d: self._conv, nn.Linear: self._linear, nn.BatchNorm2d: self._norm}
        self.run = next(run for kind, run in runs.items() if isinstance(layer, kind))

    def _conv(self, images: Tensor) -> Tensor:
        layer = self.layer
        assert isinstance(layer, nn.Conv2d)
        weight, bias = self._weights(layer)
        groups = len(weight) if layer.groups > 1 else 1
        if groups == 1 and images[:, 0].numel() <= FEW and not isinstance(layer.padding, str):
            return _conv_of_few(layer, images, weight, bias)
        return F.conv2d(images, weight, bias, layer.stride, layer.padding, layer.dilation, groups)

    def _linear(self, features: Tensor) -> Tensor:
        layer = self.layer
        assert isinstance(layer, nn.Linear)
        if self.into is None or layer.weight.numel() < LARGE:
            return F.linear(features, *self._weights(layer))
        wide = features.new_zeros(*features.shape[:-1], layer.in_features)
        wide.index_copy_(-1, self._index(self.into), features)
        return F.linear(wide, *self._outputs(layer))

    def _weights(self, layer: nn.Conv2d | nn.Linear) -> tuple[Tensor, Tensor | None]:
        """For the wanted outputs, from the inputs that are there."""
        weight, bias = self._outputs(layer)
        if self.into is not None:
            weight = weight.index_select(1, self._index(self.into))
        return weight, bias

    def _outputs(self, layer: nn.Conv2d | nn.Linear) -> tuple[Tensor, Tensor | None]:
        """For the wanted outputs, from all inputs."""
        if self.out is None:
            return layer.weight, layer.bias
        index = self._index(self.out)
        return layer.weight.index_select(0, index), None if layer.bias is None else layer.bias.index_select(0, index)

    def _index(self, side: Side) -> Tensor:
        """Positions of the channels along a side that are there."""
        return side.index(self.gated.kept or {})

    def _norm(self, images: Tensor) -> Tensor:
        """A batch norm in eval mode is a scale and a shift."""
        if self.affine is None:
            self.affine = _affine(self.layer)
        assert self.out is not None
        scale, shift = self.affine.index_select(1, self._index(self.out))[..., None, None]
        return torch.addcmul(shift, images, scale)


def _conv_of_few(layer: nn.Conv2d, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution as a product of few rows with the weights; (images, outputs, height, width)."""
    kernel, stride, padding, dilation = layer.kernel_size, layer.stride, layer.padding, layer.dilation
    assert not isinstance(padding, str)
    columns = F.unfold(images, kernel, dilation, padding, stride).transpose(1, 2)
    outputs = F.linear(columns, weight.flatten(1), bias).transpose(1, 2)
    return outputs.unflatten(2, output_sides(images.shape[2:], kernel, stride, padding, dilation))


def _affine(layer: nn.Module) -> Tensor:
    """(2, channels) scale and shift of a batch norm with running statistics."""
    assert isinstance(layer, nn.BatchNorm2d)
    assert layer.running_mean is not None
    assert layer.running_var is not None
    scale = torch.rsqrt(layer.running_var + layer.eps)
    scale = scale if layer.weight is None else scale * layer.weight
    shift = -layer.running_mean * scale
    return torch.stack([scale, shift if layer.bias is None else shift + layer.bias]).detach()
