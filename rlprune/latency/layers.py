"""The convolutions and linear layers of a network as things that can be timed alone, at any number of channels."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from rlprune.utils.modules import cuts_whole_groups, named_tensors, output_sides
from rlprune.utils.shapes import Shape, example

CONVOLUTIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}


@dataclass(frozen=True)
class Layer:
    """What a convolution or a linear layer does, but for how many channels it does it on.

    Attributes:
        dims: spatial dimensions of a convolution; 0 for a linear layer.
        spatial: (dims,) input positions; of a linear layer (rows,), how many vectors it takes for one image.
        kernel, stride, padding, dilation: (dims,) each.
        groups: of the convolution.
        width: output channels of each group where whole groups are cut; 0 where the number of groups stays.
        shape: (outputs, inputs of a group) of the dense layer.
    """

    dims: int
    spatial: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    width: int
    shape: tuple[int, int]

    def groups_at(self, outputs: int) -> int:
        """Groups of the layer when so many outputs are kept."""
        return outputs // self.width if self.width else self.groups

    def positions(self) -> int:
        """Elements of one output channel."""
        if not self.dims:
            return self.spatial[0]
        return math.prod(output_sides(self.spatial, self.kernel, self.stride, self.padding, self.dilation))

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON can hold it; `read_layer` reads it back."""
        return asdict(self)


def read_layer(data: dict[str, Any]) -> Layer:
    """A layer from what `Layer.as_dict` has made of it."""
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    return Layer(**plain)


def find_layers(module: nn.Module, shape: Shape) -> list[tuple[str, Layer]]:
    """Every call of a convolution or a linear layer, by the name of its weight, in order; weights are parameters."""
    device = next(module.parameters()).device
    with _Watch({id(tensor): name for name, tensor in named_tensors(module).items()}) as watch, torch.no_grad():
        module(example(shape, device=device))
    return watch.found


class _Watch(TorchFunctionMode):
    """Notes the calls as they are made."""

    def __init__(self, names: dict[int, str]) -> None:
        super().__init__()
        self.names = names
        self.found: list[tuple[str, Layer]] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in CONVOLUTIONS:
            self._convolution(CONVOLUTIONS[func], result, *args, **(kwargs or {}))
        elif func is F.linear:
            self._linear(*args, **(kwargs or {}))
        return result

    def _convolution(
        self,
        dims: int,
        result: Tensor,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> None:
        if id(weight) not in self.names:
            return
        kernel, dilations = tuple(weight.shape[2:]), _spread(dilation, dims)
        if padding in ("same", "valid"):
            reach = [step * (size - 1) for step, size in zip(dilations, kernel, strict=True)]
            padding = 0 if padding == "valid" else tuple(-(-each // 2) for each in reach)
        width = len(weight) // groups if cuts_whole_groups(groups, input.shape[1]) else 0
        layer = Layer(
            dims,
            tuple(input.shape[2:]),
            kernel,
            _spread(stride, dims),
            _spread(padding, dims),
            dilations,
            groups,
            width,
            (weight.shape[0], weight.shape[1]),
        )
        self.found.append((self.names[id(weight)], layer))

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
        if id(weight) in self.names:
            rows = input.numel() // input.shape[-1]
            layer = Layer(0, (rows,), (), (), (), (), 1, 0, (weight.shape[0], weight.shape[1]))
            self.found.append((self.names[id(weight)], layer))


def _spread(value: Any, dims: int) -> tuple[int, ...]:
    """One number for all dimensions, or one for each."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return values * dims if len(values) == 1 else values


def as_module(layer: Layer, outputs: int, inputs: int) -> tuple[nn.Module, tuple[int, ...]]:
    """A layer at other numbers of channels, and the shape of what it takes for one image.

    Args:
        layer: what it does.
        outputs: channels it produces.
        inputs: channels that each of its groups reads.
    """
    if not layer.dims:
        return nn.Linear(inputs, outputs), (*layer.spatial, inputs)
    groups = layer.groups_at(outputs)
    kind: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[layer.dims - 1]
    options: dict[str, Any] = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
    return kind(inputs * groups, outputs, layer.kernel, groups=groups, **options), (inputs * groups, *layer.spatial)
