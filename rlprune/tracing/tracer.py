"""Runs a network once and follows its channels through every operation.

Parameters and buffers are known by identity, so that it makes no difference whether a layer or a function uses them.
Every operation of ATen has a rule for the labels of its result (`rlprune.tracing.weight_rules`,
`rlprune.tracing.data_rules`); channels that enter an operation without a rule are never cut.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from rlprune.tracing.labels import Ties, always, distinct, first
from rlprune.utils.modules import named_tensors

Example = Tensor | tuple[Any, ...] | Mapping[str, Any]
Rule = Callable[["Tracer", "Call"], None]
RULES: dict[Any, Rule] = {}

INPUT = "it meets the network's input, or numbers that are no parameter"
OUTPUT = "its channels are the network's output"
COMPUTED = "it is tied to a weight that is computed from other parameters"
OUTER = "it is tied to a parameter that changes along several dimensions"
INDICES = "it is told by their numbers which of its channels was chosen"
LARGEST = 2**19
"""Elements of a parameter outside a layer that are followed one by one."""


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


class Tracer(TorchDispatchMode):
    """Follows channels while a network runs under it.

    Args:
        module: the network; it gets hooks that stay, so that it should be a copy.
        by_groups: weights of grouped convolutions and norms that are cut by whole groups; None to decide it here.

    Attributes:
        ties: which labels are the same channel.
        sides: weight -> labels of its output and of its input channels.
        transposed: weights whose inputs come first.
        elements: parameter or buffer used otherwise -> a label for each of its elements.
        positions: weight -> multiply-accumulates per entry.
        products: labels along the summed or the free side of a product of activations, and how often each is used.
        notes: labels of channels of several layers that met, and where.
        norms: module that normalises channels and has no parameters -> their labels.
        refused: layer whose weight is no parameter -> why, and its multiply-accumulates.
        by_groups: as above, as decided.
    """

    def __init__(self, module: nn.Module, by_groups: frozenset[str] | None = None) -> None:
        super().__init__()
        self.ties = Ties()
        self.sides: dict[str, tuple[Tensor, Tensor]] = {}
        self.transposed: set[str] = set()
        self.elements: dict[str, Tensor] = {}
        self.order: dict[str, int] = {}
        self.positions: dict[str, int] = {}
        self.products: list[tuple[Tensor, int]] = []
        self.norms: dict[str, Tensor] = {}
        self.refused: dict[str, tuple[str, int]] = {}
        self.notes: list[tuple[np.ndarray, str]] = []
        self.counting = True
        self.deciding = by_groups is None
        self.by_groups = set(by_groups or ())
        self._names = {id(tensor): name for name, tensor in reversed(named_tensors(module).items())}
        self._labels = WeakTensorKeyDictionary()
        self._numbers = WeakTensorKeyDictionary()
        self._inside: list[str] = []
        for name, part in module.named_modules():
            part.register_forward_pre_hook(partial(self._enter, name))
            part.register_forward_hook(self._leave)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Otherwise torch loads its compiler at the first run, for two seconds. Versions that do not ask ignore this.
        return False

    def run(self, module: nn.Module, example: Example) -> Any:
        """Run the network; whatever it returns is never cut."""
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with torch.inference_mode(), warnings.catch_warnings(), self:
                warnings.simplefilter("ignore")
                output = call(module, example)
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
        for tensor in output_tensors(output):
            self.ties.keep(self.labels(tensor), OUTPUT)
            self._keep_numbered(tensor)
        return output

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and label its result."""
        kwargs = kwargs or {}
        known = RULES.get(func.overloadpacket)
        if known is None and torch.Tag.pointwise in func.tags:
            known = RULES[torch.ops.aten.add]
        if known is None:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        call = Call(func, args, kwargs, func(*args, **kwargs))
        if self._numbers:
            for tensor in Call.tensors([args, kwargs]):
                self._keep_numbered(tensor)
        try:
            (known or unknown)(self, call)
        # An unusual form of a usual operation.
        except (RuntimeError, ValueError, IndexError, TypeError):
            unknown(self, call)
        return call.result

    def name(self, tensor: Tensor | None) -> str | None:
        """Name of a parameter or buffer."""
        return None if tensor is None else self._names.get(id(tensor))

    def labels(self, tensor: Tensor) -> Tensor:
        """Labels of any tensor."""
        if tensor in self._labels:
            return self._labels[tensor]
        name = self.name(tensor)
        return always(tensor.shape) if name is None else self._element_labels(name, tensor)

    def put(self, tensor: Tensor, labels: Tensor) -> None:
        """Set the labels of a result."""
        self._labels[tensor] = labels.expand(tensor.shape)

    def number(self, tensor: Tensor, labels: Tensor) -> None:
        """A result holds numbers of these channels: once somebody looks at it, none of them may be cut."""
        self._numbers[tensor] = labels

    def _keep_numbered(self, tensor: Tensor) -> None:
        if (labels := self._numbers.pop(tensor, None)) is not None:
            self.ties.keep(labels, INDICES)

    def weight(self, name: str, outputs: int, inputs: int, transposed: bool = False) -> tuple[Tensor, Tensor]:
        """Labels of the output and input channels of a weight, which is `transposed` if its inputs come first."""
        self.seen(name)
        if name not in self.sides:
            self.sides[name] = self.ties.fresh(outputs), self.ties.fresh(inputs)
            self.transposed |= {name} if transposed else set()
        made, read = self.sides[name]
        # A weight may be used from both sides.
        return (made, read) if transposed == (name in self.transposed) else (read, made)

    def along(self, labels: Tensor, dim: int) -> Tensor:
        """(channels,) labels along a dimension; along the others all elements become the same."""
        others = [other for other in range(labels.dim()) if other != dim % labels.dim()]
        return first(self.ties.even(labels, others), others).flatten()

    def tie_parameter(self, parameter: Tensor | None, labels: Tensor) -> None:
        """A parameter or buffer of one number a channel."""
        if parameter is not None:
            self.ties.tie(self.labels(parameter), labels, INPUT)

    def seen(self, name: str) -> None:
        """Remember when a parameter was first used."""
        self.order.setdefault(name, len(self.order))

    def count(self, name: str, positions: int) -> None:
        """Add multiply-accumulates per entry of a weight."""
        if self.counting:
            self.positions[name] = self.positions.get(name, 0) + positions

    def refuse(self, why: str, macs: int) -> None:
        """The layer that is running cannot be followed; it has so many multiply-accumulates."""
        layer = self._inside[-1] if self._inside else ""
        self.refused[layer] = why, macs * self.counting + self.refused.get(layer, ("", 0))[1]

    def norm(self, labels: Tensor) -> None:
        """What is running normalises these channels with no parameters."""
        if self._inside and self._inside[-1] not in self.norms:
            self.seen(f"{self._inside[-1]}.weight")
            self.norms[self._inside[-1]] = labels

    def note(self, labels: Tensor, what: str) -> None:
        """Remember where channels of several layers met."""
        inside = self._inside[-1] if self._inside else ""
        self.notes.append((distinct(labels), f"{what} in {inside}" if inside else what))

    def _enter(self, name: str, *_: Any) -> None:
        self._inside.append(name)

    def _leave(self, *_: Any) -> None:
        self._inside.pop()

    def _element_labels(self, name: str, tensor: Tensor) -> Tensor:
        self.seen(name)
        if not tensor.is_floating_point() or tensor.numel() > LARGEST:
            return always(tensor.shape)
        if name not in self.elements:
            self.elements[name] = self.ties.fresh(*tensor.shape)
            if tensor.dim() > 1:
                self.ties.parameter(self.elements[name], OUTER)
        return self.elements[name]


def unknown(trace: Tracer, call: Call) -> None:
    """An operation without a rule: what enters it is never cut."""
    for tensor in Call.tensors([call.args, call.kwargs]):
        trace.ties.keep(trace.labels(tensor), not_followed(call))


def not_followed(call: Call) -> str:
    """Why what enters an operation stays whole."""
    return f"it goes through {call.name}, which cannot be followed"


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
