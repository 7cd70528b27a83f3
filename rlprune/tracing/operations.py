"""Operations of ATen as tracing sees them, and the table of their rules."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

Rule = Callable[[Any, "Call"], None]
"""Tracer and operation -> labels of the results, which it leaves with the tracer."""
RULES: dict[Any, Rule] = {}
"""Operation -> its rule."""


class Call:
    """One operation: its arguments by name, its inputs and its result."""

    def __init__(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> None:
        self.func = func
        self.args = args
        self.kwargs = kwargs
        self.result = result

    def __getitem__(self, name: str) -> Any:
        for position, argument in enumerate(self.func._schema.arguments):
            if argument.name == name:
                given = position < len(self.args)
                return self.args[position] if given else self.kwargs.get(name, argument.default_value)
        return None

    @property
    def name(self) -> str:
        """Such as ``conv2d``."""
        return self.func.overloadpacket.__name__

    @property
    def out(self) -> Tensor:
        """The first tensor of the result."""
        return self.tensors(self.result)[0]

    @staticmethod
    def tensors(tree: Any) -> list[Tensor]:
        """All tensors of a nested structure."""
        return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for operations of ATen, with their in-place forms; unknown names are of other torch versions."""

    def register(function: Rule) -> Rule:
        for form in [*names, *(f"{name}_" for name in names)]:
            if (packet := getattr(torch.ops.aten, form, None)) is not None:
                RULES[packet] = function
        return function

    return register


def not_followed(call: Call) -> str:
    """Why what enters an operation stays whole."""
    return f"it goes through {call.name}, which cannot be followed"
