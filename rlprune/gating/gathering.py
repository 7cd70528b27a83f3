"""How a gated network computes the chosen channels alone: the weights of every layer are gathered before it runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlprune.gating.gate import Choose
from rlprune.gating.network import GatedNetwork, Side
from rlprune.utils.modules import output_sides

FEW = 8
"""Pixels, of all images together, up to which PyTorch's convolutions take several times longer than a product."""
LARGE = 1 << 20
"""Weights of a linear layer from which on to gather them one by one takes longer than to compute with all of them."""


class Gathering:
    """The layers of a gated network along whose sides gated channels lie, each as it runs with a part of them.

    Args:
        gated: the network.
    """

    def __init__(self, gated: GatedNetwork) -> None:
        self.gated = gated
        layers = dict(gated.network.named_modules())
        self.parts = [_Part(gated, layers[name], name) for name in dict.fromkeys(layer for layer, _ in gated.sides)]

    @contextmanager
    def on(self, choose: Choose | None = None) -> Iterator[None]:
        """Within, a pass through the network computes the union of the channels that its images need.

        Args:
            choose: in the place of the network's own gates and agent.
        """
        self.gated.kept, self.gated.choose = {}, choose
        for part in self.parts:
            part.layer.forward = part.run  # type: ignore[method-assign]
        try:
            yield
        finally:
            self.gated.kept = self.gated.choose = None
            for part in self.parts:
                part.restore()

    def forget(self) -> None:
        """What was read from the tensors."""
        for part in self.parts:
            part.affine = None


class _Part:
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
        self.before = vars(layer).get("forward")
        self.forward: Callable[[Tensor], Tensor] = layer.forward
        runs = {nn.Conv2d: self._conv, nn.Linear: self._linear, nn.BatchNorm2d: self._norm}
        self.run = next((run for kind, run in runs.items() if _runs_as(layer, kind)), self._own)
        self.tensors = _sides_of_tensors(gated, name)

    def restore(self) -> None:
        """The layer runs as before."""
        del self.layer.forward
        if self.before is not None:
            self.layer.forward = self.before  # type: ignore[method-assign]

    def _conv(self, images: Tensor) -> Tensor:
        layer = self.layer
        assert isinstance(layer, nn.Conv2d)
        weight, bias = self._weights(layer)
        padding: Any = layer.padding
        if layer.padding_mode != "zeros":
            images = F.pad(images, layer._reversed_padding_repeated_twice, mode=layer.padding_mode)
            padding = (0, 0)
        groups = _groups(layer, images, weight)
        if groups == 1 and images[:, 0].numel() <= FEW and not isinstance(padding, str):
            return _conv_of_few(layer, images, weight, bias, padding)
        return F.conv2d(images, weight, bias, layer.stride, padding, layer.dilation, groups)

    def _linear(self, features: Tensor) -> Tensor:
        layer = self.layer
        assert isinstance(layer, nn.Linear)
        if self.into is None or layer.weight.numel() < LARGE:
            return F.linear(features, *self._weights(layer))
        wide = features.new_zeros(*features.shape[:-1], layer.in_features)
        wide.index_copy_(-1, self._index(self.into), features)
        return F.linear(wide, *self._outputs(layer))

    def _norm(self, images: Tensor) -> Tensor:
        """A batch norm in eval mode is a scale and a shift."""
        if self.affine is None:
            self.affine = _affine(self.layer)
        assert self.out is not None
        scale, shift = self.affine.index_select(1, self._index(self.out))[..., None, None]
        return torch.addcmul(shift, images, scale)

    def _own(self, images: Tensor) -> Tensor:
        """What is more than its kind, such as a batch norm with an activation: its own code, on gathered tensors."""
        layer = self.layer
        with _in_place_of(layer, self._gathered()):
            if not isinstance(layer, nn.Conv2d):
                return self.forward(images)
            groups, layer.groups = layer.groups, _groups(layer, images, layer.weight)
            try:
                return self.forward(images)
            finally:
                layer.groups = groups

    def _gathered(self) -> dict[str, Tensor]:
        """Every tensor of the layer, for the channels that are wanted and those that are there."""
        found = {}
        for leaf, sides in self.tensors.items():
            tensor = getattr(self.layer, leaf)
            for dim, side in sides:
                tensor = tensor.index_select(dim, self._index(side))
            found[leaf] = tensor
        return found

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


def _runs_as(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a layer computes just what its kind computes: many are convolutions or norms, and something more."""
    same = isinstance(layer, kind) and type(layer).forward is kind.forward and "forward" not in vars(layer)
    if isinstance(layer, nn.Conv2d):
        same = same and type(layer)._conv_forward is nn.Conv2d._conv_forward
    return same and (not isinstance(layer, nn.BatchNorm2d) or layer.running_mean is not None)


def _groups(layer: nn.Conv2d, images: Tensor, weight: Tensor) -> int:
    """Groups of a convolution of the channels that are there: of a depthwise one, all of them."""
    return 1 if layer.groups == 1 else images.shape[1] // weight.shape[1]


def _sides_of_tensors(gated: GatedNetwork, name: str) -> dict[str, list[tuple[int, Side]]]:
    """Name of a layer's own tensor -> its dimensions along which gated channels lie."""
    found: dict[str, list[tuple[int, Side]]] = {}
    for tensor in gated.graph.tensors:
        owner, _, leaf = tensor.name.rpartition(".")
        axes = [gated.graph.axes[axis] if axis is not None else None for axis in tensor.axes]
        sides = [
            (dim, gated.sides[axis.layer, axis.side])
            for dim, axis in enumerate(axes)
            if axis is not None and (axis.layer, axis.side) in gated.sides
        ]
        if owner == name and sides:
            found[leaf] = sides
    return found


@contextmanager
def _in_place_of(layer: nn.Module, tensors: dict[str, Tensor]) -> Iterator[None]:
    """Within, a layer has other parameters and buffers."""
    places: list[tuple[dict[str, Any], str]] = [
        (layer._buffers if leaf in layer._buffers else layer._parameters, leaf) for leaf in tensors
    ]
    before = [place[leaf] for place, leaf in places]
    try:
        for place, leaf in places:
            place[leaf] = tensors[leaf]
        yield
    finally:
        for (place, leaf), tensor in zip(places, before, strict=True):
            place[leaf] = tensor


def _conv_of_few(layer: nn.Conv2d, images: Tensor, weight: Tensor, bias: Tensor | None, padding: Any) -> Tensor:
    """A convolution as a product of few rows with the weights; (images, outputs, height, width)."""
    kernel, stride, dilation = layer.kernel_size, layer.stride, layer.dilation
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
