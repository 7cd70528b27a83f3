"""Why a network cannot be traced: it does not run, cannot be copied, or does not run as a copy."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.errors import UserError
from rlprune.tracing.examples import Example, call
from rlprune.utils.modules import OWN, copy_sharing_weights, evaluating

USUAL = (RuntimeError, ValueError, IndexError, TypeError, AssertionError)
"""What networks end in that do not fit their input, or whose numbers of channels are written into their code."""


def explain(module: nn.Module, example: Example, error: Exception) -> None:
    """Say why a network cannot be traced; returns where it should be possible.

    Args:
        module: the network.
        example: one input.
        error: what tracing ended in.

    Raises:
        UserError: it does not run, cannot be copied, or does not run as a copy.
    """
    _require(_ran(module, example), example)
    try:
        other = copy_sharing_weights(module)
    except Exception as why:
        raise UserError(f"the network cannot be copied, {_culprit(module)}: {_short(why)}") from error
    if (wrong := _ran(other, example)) is not None:
        hooked = [name for name, part in module.named_modules() if part._forward_hooks or part._forward_pre_hooks]
        named = f"the hook of '{hooked[0]}' may" if hooked else "something in it may"
        raise UserError(
            f"the network runs, but a copy of it does not ({_short(wrong)}): {named} hold the first network; it has to "
            "work with the module that it is called with"
        ) from error
    if (wrong := _ran(other, example, torch.inference_mode)) is not None:
        raise UserError(
            f"the network runs, but not without gradients ({_short(wrong)}), and cannot be followed with them"
        ) from error


def _require(wrong: Exception | None, example: Example) -> None:
    if wrong is not None:
        raise UserError(f"the network does not run on {described(example)}: {_short(wrong)}") from wrong


def _ran(module: nn.Module, example: Example, mode: Callable[[], Any] = torch.enable_grad) -> Exception | None:
    """What a network ends in, or None if it runs."""
    try:
        with evaluating(module), mode():
            call(module, example)
    except Exception as error:
        return error
    return None


def _short(error: Exception) -> str:
    """An error's own words; its kind where these do not tell."""
    text = str(error).strip()
    usual = isinstance(error, USUAL) and text
    return text if usual else f"{type(error).__name__}: {text}"


def _culprit(module: nn.Module) -> str:
    """Which attribute of which module stands against copying it."""
    for name, part in module.named_modules():
        for attribute, value in vars(part).items():
            if attribute not in OWN:
                try:
                    copy.deepcopy(value)
                except Exception:
                    return f"because of '{f'{name}.' if name else ''}{attribute}'"
    return "because of something in it"


def described(example: Example) -> str:
    """An example in words."""
    if isinstance(example, Tensor):
        return f"an image of shape {tuple(example.shape[1:])}"
    tensors = example.values() if not isinstance(example, tuple) else example
    return "inputs of shapes " + ", ".join(str(tuple(getattr(tensor, "shape", ()))) for tensor in tensors)
