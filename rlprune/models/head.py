"""The layer that makes a classifier's outputs, and a fresh one in its place."""

from typing import Any

import torch
from torch import Tensor, nn

from rlprune.errors import UserError
from rlprune.utils.modules import evaluating
from rlprune.utils.shapes import Shape, example


def find_head(module: nn.Module, shape: Shape) -> str:
    """The name of the last linear layer or 1x1 convolution that has as many outputs as the network.

    Args:
        module: a classifier; it is run once, on an image of nothing.
        shape: (C, H, W) of an image.

    Raises:
        UserError: it has no such layer.
    """
    called: list[str] = []
    hooks = [
        layer.register_forward_hook(lambda *_, name=name: called.append(name))
        for name, layer in module.named_modules()
        if _could_be_one(layer)
    ]
    device = next((tensor.device for tensor in module.parameters()), "cpu")
    try:
        with evaluating(module), torch.no_grad():
            output = module(example(shape, device=device))
    except (RuntimeError, TypeError, ValueError, AssertionError, IndexError) as error:
        raise UserError(f"the network does not run on an image of shape {shape}: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
    outputs = output.shape[1] if isinstance(output, Tensor) and output.dim() > 1 else None
    for name in reversed(called):
        if _outputs(module.get_submodule(name)) == outputs:
            return name
    raise UserError(
        "this network has no last layer that could be made anew: none of its linear layers and 1x1 convolutions has as "
        "many outputs as itself; leave out --new-head, and let its factory take num_classes"
    )


def give_head(module: nn.Module, classes: int, shape: Shape) -> None:
    """Put a fresh layer in the place of the last one, unless that has as many outputs as there are classes.

    Args:
        module: a classifier, changed in place; the weights are drawn from torch's global generator.
        classes: outputs that it shall have.
        shape: (C, H, W) of an image.

    Raises:
        UserError: there is no last layer, or more than that decides on the number of outputs.
    """
    name = find_head(module, shape)
    old: Any = module.get_submodule(name)
    if _outputs(old) == classes:
        return
    options: dict[str, Any] = {"bias": old.bias is not None, "device": old.weight.device, "dtype": old.weight.dtype}
    fresh: nn.Module
    if isinstance(old, nn.Linear):
        fresh = nn.Linear(old.in_features, classes, **options)
    else:
        fresh = nn.Conv2d(old.in_channels, classes, 1, stride=old.stride, **options)
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, fresh.train(old.training))
    try:
        find_head(module, shape)
    except UserError as error:
        raise UserError(
            f"--new-head cannot make '{name}' anew: with {classes} outputs there it is not the network's ({error})"
        ) from error


def _could_be_one(layer: nn.Module) -> bool:
    pointwise = isinstance(layer, nn.Conv2d) and set(layer.kernel_size) == {1} and layer.groups == 1
    return isinstance(layer, nn.Linear) or pointwise


def _outputs(layer: nn.Module) -> int:
    return len(layer.get_parameter("weight"))
