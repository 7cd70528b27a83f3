"""Runs a network once and follows its channels through every operation.

Parameters and buffers are known by identity, so that it makes no difference whether a layer or a function uses them.
Every operation of ATen has a rule for the labels of its result (`rlprune.tracing.weight_rules`,
`rlprune.tracing.data_rules`); channels that enter an operation without a rule are never cut.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakTensorKeyDictionary

from rlprune.errors import UserError
from rlprune.tracing.closed import Closed
from rlprune.tracing.examples import Example, call, output_tensors, plain
from rlprune.tracing.labels import Ties, always, distinct, first
from rlprune.tracing.operations import RULES, Call, not_followed
from rlprune.tracing.provenance import Provenance
from rlprune.utils.modules import named_tensors

INPUT = "it meets the network's input, or numbers that are no parameter"
OUTPUT = "its channels are the network's output"
COMPUTED = "it is tied to a weight that is computed from other parameters"
OUTER = "it is tied to a parameter that changes along several dimensions"
INDICES = "it is told by their numbers which of its channels was chosen"
DECIDING = ("_local_scalar_dense", "equal")
"""Operations that tell Python a number."""
LARGEST = 2**19
"""Elements of a parameter outside a layer that are followed one by one; of a larger one its likely channels are."""


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
        products: labels along the summed or the free side of a product of activations, how often each is used, and by
            which layer.
        notes: labels of channels of several layers that met, and where.
        norms: module that normalises channels and has no parameters -> their labels.
        refused: layer whose weight is no parameter -> why, and its multiply-accumulates.
        by_groups: as above, as decided.
        tensors: all parameters and buffers by name.
        decisions: numbers of the data that Python got to see in the last run, in order.
        forced: what it gets to see in their place from the next run on, as far as they go.
        steered: whether the way through the network has ever depended on the data.
        operations: how many there were in the last run.
    """

    def __init__(self, module: nn.Module, by_groups: frozenset[str] | None = None) -> None:
        super().__init__()
        self.ties = Ties()
        self.sides: dict[str, tuple[Tensor, Tensor]] = {}
        self.transposed: set[str] = set()
        self.elements: dict[str, Tensor] = {}
        self.order: dict[str, int] = {}
        self.positions: dict[str, int] = {}
        self.products: list[tuple[Tensor, int, str]] = []
        self.norms: dict[str, Tensor] = {}
        self.refused: dict[str, tuple[str, int]] = {}
        self.notes: list[tuple[np.ndarray, str]] = []
        self.counting = True
        self.decisions: list[Any] = []
        self.forced: list[Any] = []
        self.steered = False
        self.operations = 0
        self.deciding = by_groups is None
        self.by_groups = set(by_groups or ())
        self.tensors = named_tensors(module)
        self._names = {id(tensor): name for name, tensor in reversed(self.tensors.items())}
        self._labels = WeakTensorKeyDictionary()
        self._numbers = WeakTensorKeyDictionary()
        self._data = Provenance()
        self._inside: list[str] = []
        self._closed, self._closed_macs = False, 0
        for name, part in module.named_modules():
            if isinstance(part, Closed):
                part.trace = self
            part.register_forward_pre_hook(partial(self._enter, name))
            part.register_forward_hook(self._leave)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Otherwise torch loads its compiler at the first run, for two seconds. Versions that do not ask ignore this.
        return False

    def run(self, module: nn.Module, example: Example) -> Any:
        """Run the network; whatever it returns is never cut.

        Raises:
            UserError: what it returns has not been made of its input by operations that are seen here.
        """
        self._inside.clear()
        self.decisions, self.operations = [], 0
        example = dict(example) if isinstance(example, Mapping) else example
        example = tree_map(plain, example)
        self._data.add(Call.tensors(example))
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with torch.inference_mode(), warnings.catch_warnings(), self:
                warnings.simplefilter("ignore")
                output = call(module, example)
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
        outputs = output_tensors(output)
        if outputs and not any(tensor in self._data for tensor in outputs):
            kinds = ", ".join(sorted({type(tensor).__name__ for tensor in outputs}))
            raise UserError(
                f"what the network returns ({kinds}) cannot be followed back to its input: tensors of a class of their "
                "own, or numbers from outside PyTorch, break the thread"
            )
        for tensor in outputs:
            self.ties.keep(self.labels(tensor), OUTPUT)
            self._keep_numbered(tensor)
        return output

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and label its result."""
        kwargs = kwargs or {}
        if self._closed:
            return self._count_closed(func, args, kwargs)
        known = RULES.get(func.overloadpacket)
        if known is None and torch.Tag.pointwise in func.tags:
            known = RULES[torch.ops.aten.add]
        if known is None:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        call = Call(func, args, kwargs, func(*args, **kwargs))
        self._remember(call)
        try:
            (known or unknown)(self, call)
        # An unusual form of a usual operation, in which a rule may fail in any way: that is never the network's fault.
        except Exception:
            unknown(self, call)
        return call.result

    def _remember(self, call: Call) -> None:
        """What is made of the data, what is decided by it, and who looks at numbers of channels."""
        self.operations += 1
        inputs = Call.tensors([call.args, call.kwargs])
        for tensor in inputs if self._numbers else ():
            self._keep_numbered(tensor)
        results = Call.tensors(call.result)
        self._data.relate(inputs, results)
        if not any(tensor in self._data for tensor in inputs):
            return
        self._data.add(results)
        if call.name in DECIDING:
            call.result = self._decide(call.result)
        elif call.name == "index":
            masks = [index for index in call["indices"] if index is not None and index.dtype == torch.bool]
            self.steered |= any(mask in self._data for mask in masks)
        elif torch.Tag.dynamic_output_shape in call.func.tags:
            self.steered = True

    def _decide(self, found: Any) -> Any:
        """A number of the data that Python gets to see; another one in its place, where that is wanted."""
        self.steered = True
        place = len(self.decisions)
        self.decisions.append(self.forced[place] if place < len(self.forced) else found)
        return self.decisions[place]

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

    def product(self, labels: Tensor, times: int) -> None:
        """Add a product of activations: labels along one of its sides, multiply-accumulates per entry."""
        if self.counting:
            self.products.append((labels, times, self._inside[-1] if self._inside else ""))

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

    @contextmanager
    def closed(self, what: str, inputs: Any) -> Iterator[None]:
        """Within, nothing is followed; what went in stays whole."""
        for tensor in Call.tensors(inputs):
            self.ties.keep(self.labels(tensor), f"it enters '{self._inside[-1]}', which is {what}")
        self.seen(self._inside[-1])
        self._closed, self._closed_macs = True, 0
        try:
            yield
        finally:
            self._closed = False
        self.refuse(f"it is {what}, which cannot be looked into", self._closed_macs)

    def _count_closed(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An operation of a closed part, whose multiply-accumulates are those of torch's own counter."""
        if (work := flop_registry.get(func.overloadpacket)) is None:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **kwargs)
        self._closed_macs += work(*args, **kwargs, out_val=result) // 2 if work else 0
        return result

    def come_out(self, output: Any) -> None:
        """What a closed part has made of the data."""
        self._data.add(output_tensors(output))

    def _element_labels(self, name: str, tensor: Tensor) -> Tensor:
        self.seen(name)
        if not tensor.is_floating_point():
            return always(tensor.shape)
        if name not in self.elements and tensor.numel() > LARGEST:
            # Those of a map come before its positions, those of a table last.
            channels = 1 if tensor.dim() > 3 else tensor.dim() - 1
            labels = self.ties.fresh(tensor.shape[channels])
            self.elements[name] = labels.view(-1, *[1] * (tensor.dim() - channels - 1)).expand(tensor.shape)
        elif name not in self.elements:
            self.elements[name] = self.ties.fresh(*tensor.shape)
            if tensor.dim() > 1:
                self.ties.parameter(self.elements[name], OUTER)
        return self.elements[name]


def unknown(trace: Tracer, call: Call) -> None:
    """An operation without a rule: what enters it is never cut."""
    for tensor in Call.tensors([call.args, call.kwargs]):
        trace.ties.keep(trace.labels(tensor), not_followed(call))
