"""Inputs and outputs of a network, whatever they are wrapped in."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

Example = Tensor | tuple[Any, ...] | Mapping[str, Any]
"""One input: a tensor, several by position, or several by name."""


def plain(tensor: Any) -> Any:
    """A tensor without a class of its own around it, which would hide what becomes of it."""
    mine = isinstance(tensor, Tensor) and type(tensor) not in (Tensor, nn.Parameter)
    dispatches = type(tensor).__torch_dispatch__ is not torch._C._disabled_torch_dispatch_impl if mine else True
    return tensor if dispatches else tensor.as_subclass(Tensor)


def call(module: nn.Module, example: Example) -> Any:
    """Run a network on one tensor, on several, or on named ones."""
    if isinstance(example, Mapping):
        return module(**example)
    return module(*example) if isinstance(example, tuple) else module(example)


def output_tensors(output: Any, seen: set[int] | None = None) -> list[Tensor]:
    """The tensors of a result, whatever they are wrapped in."""
    seen = set() if seen is None else seen
    if isinstance(output, Tensor):
        return [output]
    if id(output) in seen or isinstance(output, (str, bytes, nn.Module, type)):
        return []
    seen.add(id(output))
    if isinstance(output, Mapping):
        parts = list(output.values())
    elif isinstance(output, Iterable):
        parts = list(output)
    elif is_dataclass(output):
        parts = [getattr(output, part.name) for part in fields(output)]
    else:
        parts = list(getattr(output, "__dict__", {}).values())
    return [tensor for part in parts for tensor in output_tensors(part, seen)]
