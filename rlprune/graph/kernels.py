"""Grouped kernels: the input slices that stay inside each group of a convolution's filters, and what then stands there.

A group of filters reads only the inputs that it keeps: the layer becomes a gather of inputs, a grouped convolution and
a scatter of outputs (Zhong et al., 2022, Revisit Kernel Pruning with Lottery Regulated Grouped Convolutions).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlprune.errors import UserError
from rlprune.graph.removal import put
from rlprune.utils.modules import CONVOLUTIONS, copy_module, unwrapped


@dataclass(frozen=True)
class KernelCut:
    """What stays of the kernels of one convolution.

    Attributes:
        filters: (groups, filters of each) which filters form a group; every filter of the layer is in one of them.
        slices: (groups, slices that stay) which inputs the filters of a group read, ascending.
    """

    filters: tuple[tuple[int, ...], ...]
    slices: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if len(self.filters) != len(self.slices) or not self.filters:
            raise ValueError("there are not as many groups of filters as of slices")
        if len(set(map(len, self.filters))) > 1 or len(set(map(len, self.slices))) > 1 or not self.slices[0]:
            raise ValueError("groups are not equally large, or keep nothing")
        if sorted(number for group in self.filters for number in group) != list(range(self.outputs)):
            raise ValueError("not every filter is in just one group")
        if any(sorted(set(mine)) != list(mine) or mine[0] < 0 for mine in self.slices):
            raise ValueError("slices are not ascending, or one stands twice")

    @property
    def outputs(self) -> int:
        """Filters of the layer."""
        return sum(map(len, self.filters))

    @property
    def kept(self) -> int:
        """Slices that every group keeps."""
        return len(self.slices[0])

    def mask(self, inputs: int) -> Tensor:
        """(filters, inputs) bool, True where a kernel of the dense weights stays."""
        stays = torch.zeros(self.outputs, inputs, dtype=torch.bool)
        for filters, slices in zip(self.filters, self.slices, strict=True):
            stays[torch.tensor(filters)[:, None], torch.tensor(slices)] = True
        return stays


class GroupedKernels(nn.Module):
    """Gather, grouped convolution, scatter: what a convolution computes whose other kernels are zero.

    Args:
        layer: the dense convolution; what stays of its weights is copied.
        cut: what stays.

    Attributes:
        conv: the grouped convolution.
        inputs: (groups * slices that stay,) which inputs it gathers, one group after the other.
        outputs: (filters,) where the grouped convolution has each of the layer's outputs.
    """

    def __init__(self, layer: nn.Module, cut: KernelCut) -> None:
        super().__init__()
        assert isinstance(layer, CONVOLUTIONS)
        device = layer.weight.device
        order = torch.tensor(cut.filters, device=device)
        slices = torch.tensor(cut.slices, device=device)
        self.conv = type(layer)(
            slices.numel(),
            layer.out_channels,
            layer.kernel_size,  # type: ignore[arg-type]
            stride=layer.stride,  # type: ignore[arg-type]
            padding=layer.padding,  # type: ignore[arg-type]
            dilation=layer.dilation,  # type: ignore[arg-type]
            groups=len(order),
            bias=layer.bias is not None,
            padding_mode=layer.padding_mode,
            device=device,
            dtype=layer.weight.dtype,
        )
        with torch.no_grad():
            kept = [layer.weight[filters][:, mine] for filters, mine in zip(order, slices, strict=True)]
            self.conv.weight.copy_(torch.cat(kept))
            if layer.bias is not None and self.conv.bias is not None:
                self.conv.bias.copy_(layer.bias[order.flatten()])
        for name, parameter in self.conv.named_parameters():
            parameter.requires_grad_(layer.get_parameter(name).requires_grad)
        self.register_buffer("inputs", slices.flatten())
        self.register_buffer("outputs", order.flatten().argsort())
        self.inputs: Tensor
        self.outputs: Tensor
        self.train(layer.training)

    def forward(self, images: Tensor) -> Tensor:
        """What the layer computes of (N, inputs, ...) features: (N, filters, ...)."""
        return _gather(self.conv(_gather(images, self.inputs)), self.outputs)


def _gather(images: Tensor, channels: Tensor) -> Tensor:
    """Some channels, channels last where they were: grouped convolutions are slow where only their weights are."""
    if images.dim() == 4 and images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous():
        return images.permute(0, 2, 3, 1).index_select(3, channels).permute(0, 3, 1, 2)
    return images.index_select(1, channels)


def put_kernels(module: nn.Module, cuts: Mapping[str, KernelCut]) -> None:
    """Put what stays in the place of convolutions.

    Args:
        module: a network that has them; changed in place.
        cuts: layer -> what stays of it.

    Raises:
        UserError: there is no such convolution, or the cut is none of it.
    """
    layers = dict(module.named_modules())
    for name, cut in cuts.items():
        layer = layers.get(name)
        if not isinstance(layer, CONVOLUTIONS) or layer.groups != 1:
            raise UserError(f"the plan cuts kernels of '{name}', which is no plain convolution of this network")
        if layer.out_channels != cut.outputs or max(mine[-1] for mine in cut.slices) >= layer.in_channels:
            raise UserError(
                f"the plan does not fit '{name}', which has {layer.out_channels} filters of {layer.in_channels} slices"
            )
        put(module, name, GroupedKernels(layer, cut))


def cut_kernels(module: nn.Module, cuts: Mapping[str, KernelCut]) -> nn.Module:
    """A smaller copy of a network, with parameters of its own.

    Args:
        module: the dense network; left as it was.
        cuts: layer -> what stays of it; layers that are not named stay whole.

    Raises:
        UserError: see `put_kernels`.
    """
    smaller = copy_module(unwrapped(module))
    put_kernels(smaller, cuts)
    return smaller


def why_whole(module: nn.Module, name: str, groups: int) -> str | None:
    """Why kernels of a convolution cannot be cut, or None.

    Args:
        module: the network.
        name: of a layer that it has.
        groups: of filters that are asked for.
    """
    layer = module.get_submodule(name)
    if type(layer) not in CONVOLUTIONS:
        return "it is no plain convolution"
    assert isinstance(layer, CONVOLUTIONS)
    if layer.groups != 1:
        return "it is a grouped convolution already"
    owners = [owner for owner, part in module.named_modules(remove_duplicate=False) if part is layer]
    sharing = [owner for owner, weight in module.named_parameters(remove_duplicate=False) if weight is layer.weight]
    if len(owners) > 1 or len(sharing) > 1:
        return "it shares its weights"
    if any(hooks for key, hooks in vars(layer).items() if key.endswith("_hooks")):
        return "something is hooked to it"
    if layer.in_channels < 2:
        return "its filters have a single slice"
    if groups_of(layer.out_channels, groups) < 2:
        return f"its {layer.out_channels} filters make no equal groups, {groups} at most"
    return None


def groups_of(filters: int, groups: int) -> int:
    """The largest number of equal groups that so many filters make, `groups` at most."""
    return max(number for number in range(1, groups + 1) if filters % number == 0)
