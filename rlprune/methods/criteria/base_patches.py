"""What the filters of a layer see of its inputs."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlprune.errors import UserError
from rlprune.utils.modules import CONVOLUTIONS, TRANSPOSED


def kernels(layer: nn.Module) -> Tensor:
    """(groups, outputs, inputs, kernel positions) weights of a convolution or linear layer.

    Raises:
        UserError: it is neither.
    """
    if isinstance(layer, nn.Linear):
        return layer.weight.detach().float()[None, :, :, None]
    if isinstance(layer, CONVOLUTIONS):
        return layer.weight.detach().float().flatten(2).unflatten(0, (layer.groups, -1))
    if isinstance(layer, TRANSPOSED):
        return layer.weight.detach().float().flatten(2).unflatten(0, (layer.groups, -1)).transpose(1, 2)
    raise UserError(f"criterion pfp does not apply: {type(layer).__name__} is no convolution or linear layer")


def patches(layer: nn.Module, features: Tensor, positions: int, drawn: torch.Generator) -> Tensor:
    """(groups, inputs, kernel positions or 1, patches) what the kernel of a layer is laid upon.

    There is one kernel position where all of them meet the same inputs.

    Args:
        layer: a convolution or linear layer.
        features: its input.
        positions: of the kernel on every image, drawn at random; 0 is all of them.
        drawn: the source of all randomness.
    """
    if isinstance(layer, nn.Linear):
        laid = features.flatten(1, -2).mT if features.dim() > 2 else features[..., None]
        return _chosen(laid[..., None], 1, positions, drawn)[None]
    laid = features[..., None] if isinstance(layer, TRANSPOSED) else _laid(layer, features)
    return _chosen(laid, features.dim() - 2, positions, drawn).unflatten(0, (layer.groups, -1))  # type: ignore[arg-type]


def _laid(layer: Any, features: Tensor) -> Tensor:
    """(images, channels, positions of the kernel..., kernel...) without a copy of the image for each of them."""
    # The one place where a layer tells its padding in numbers, be it "same" or in a mode.
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    laid = F.pad(features, layer._reversed_padding_repeated_twice, mode=mode)
    for dim, (size, step, gap) in enumerate(zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)):
        laid = laid.unfold(2 + dim, gap * (size - 1) + 1, step)[..., ::gap]
    return laid


def _chosen(laid: Tensor, dims: int, positions: int, drawn: torch.Generator) -> Tensor:
    """(channels, kernel, patches) of so many positions of every image; `dims` dimensions tell them apart."""
    places = laid.shape[2 : 2 + dims]
    number, count = len(laid), places.numel()
    chosen = torch.arange(count).expand(number, -1)
    if 0 < positions < count:
        chosen = torch.randint(count, (number, positions), generator=drawn)
    index: Any = (torch.arange(number)[:, None], slice(None), *torch.unravel_index(chosen, places))
    found = laid[index]
    return found.flatten(0, 1).flatten(2).permute(1, 2, 0)
