"""What is asked of any network's modules."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils._pytree import tree_leaves


def output_sides(
    spatial: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> list[int]:
    """(dims,) positions of a convolution's output along each dimension; the formula is that of `torch.nn.Conv2d`."""
    facts = zip(spatial, kernel, stride, padding, dilation, strict=True)
    return [(side + 2 * pad - gap * (wide - 1) - 1) // step + 1 for side, wide, step, pad, gap in facts]


CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
OWN = ("_modules", "_parameters", "_buffers")
"""Where a module keeps what its network knows of."""
AROUND = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
BLOCK = 16
"""Channels that a CPU's vector unit takes at once, at most."""


def cuts_whole_groups(groups: int, channels: int) -> bool:
    """Whether a grouped convolution or norm over so many channels loses whole groups.

    Where the groups are few and wide, all of them become narrower instead, which leaves more choice.
    """
    return groups > 1 and groups * groups >= channels


def opaque(part: nn.Module) -> str | None:
    """What a module is that nobody can look into and nothing can be cut of, in words; None for any other."""
    if isinstance(part, torch.jit.ScriptModule):
        return "a scripted module"
    return "a quantised module" if ".quantized" in type(part).__module__ else None


def unwrapped(module: nn.Module) -> nn.Module:
    """The network itself, inside of what trains it on several devices, averages its weights or compiles it.

    Layers then have the names that the network gives them, and nothing compiled stands between them. Weights are
    shared, so that what is done to the network is done to what is around it.

    Args:
        module: any module; a `DataParallel`, `DistributedDataParallel`, `AveragedModel` or compiled one is opened, also
            several of them around one another.
    """
    while True:
        if isinstance(module, AROUND):
            module = module.module
        elif _is_compiled(module):
            module = module.get_submodule("_orig_mod")
        else:
            return module


def unwrap_inside(module: nn.Module) -> nn.Module:
    """The same as `unwrapped` for a network that nobody else holds: layers that are compiled alone are opened, too.

    Args:
        module: changed in place.
    """
    module = unwrapped(module)
    for part in list(module.modules()):
        part._compiled_call_impl = None  # type: ignore[assignment]
        for name, inner in list(part.named_children()):
            if (bare := unwrapped(inner)) is not inner:
                setattr(part, name, bare)
    return module


def _is_compiled(module: nn.Module) -> bool:
    # By its name: its class is in PyTorch's compiler, which takes two seconds to load.
    return type(module).__name__ == "OptimizedModule" and "_orig_mod" in module._modules


@contextmanager
def evaluating(module: nn.Module) -> Iterator[nn.Module]:
    """Within, the network is in eval mode; afterwards every module is in the mode that it was in."""
    modes = {part: part.training for part in module.modules()}
    try:
        yield module.eval()
    finally:
        for part, training in modes.items():
            part.training = training


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer by all its names, with the buffers that a state dict leaves out."""
    return dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))


def shapes_of(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor by its name; a module may keep anything beside its tensors."""
    return {name: tuple(value.shape) for name, value in state.items() if isinstance(value, Tensor)}


def copy_sharing_weights(module: nn.Module) -> nn.Module:
    """A copy of a network with its very parameters and buffers, so that it takes next to no memory."""
    # Deepcopy keeps what its memo names.
    memo = {id(tensor): tensor for tensor in named_tensors(module).values()}
    return copy.deepcopy(module, _left_behind(module) | memo)


def copy_module(module: nn.Module) -> nn.Module:
    """A copy of a network with parameters and buffers of its own."""
    return copy.deepcopy(module, _left_behind(module))


def _left_behind(module: nn.Module) -> dict[int, Tensor]:
    """What a pass has left in a network's modules that Python refuses to copy: tensors that gradients flow through.

    Such are the features that a module keeps, and weights that are computed anew at every pass, as of the old
    `weight_norm` and of `torch.nn.utils.prune`. The numbers do, without their history.
    """
    found: dict[int, Tensor] = {}
    for part in module.modules():
        for leaf in tree_leaves([value for name, value in vars(part).items() if name not in OWN]):
            if isinstance(leaf, Tensor) and leaf.grad_fn is not None:
                found[id(leaf)] = leaf.detach()
    return found


@contextmanager
def safe_backward(module: nn.Module) -> Iterator[None]:
    """Within, strided pointwise convolutions of few channels skip pixels of their input instead of striding over them.

    The result is the same. oneDNN's backward pass of such a convolution writes beyond its buffer where the images are
    channels last and there are fewer channels than a CPU's vector unit takes at once (its issue 6035). The shortcuts
    of narrow or heavily pruned residual networks are of this kind.
    """
    with ExitStack() as stack:
        for layer in {layer for layer in module.modules() if isinstance(layer, nn.Conv2d)}:
            pointwise = set(layer.kernel_size) == {1} and layer.padding in ((0, 0), "valid")
            if pointwise and max(layer.stride) > 1 and layer.in_channels < BLOCK:
                stack.enter_context(_skipping(layer))
        yield


@contextmanager
def _skipping(layer: nn.Conv2d) -> Iterator[None]:
    """Within, a pointwise convolution has stride 1 and gets only the pixels that it would have stopped at."""
    stride = layer.stride
    hook = layer.register_forward_pre_hook(lambda _, inputs: inputs[0][..., :: stride[0], :: stride[1]])
    layer.stride = (1, 1)
    try:
        yield
    finally:
        hook.remove()
        layer.stride = stride
