"""Residual blocks that may be taken out whole, found by what they compute and not by how they are written.

A block is a module with one tensor in and one of the same shape out, which adds to its input what its layers make of
it. Whether that is so is tried: the module is run alone, every sum of something with its own input is answered by that
input, and what comes out must be the input itself, or an activation of it. That is what remains without the block.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rlprune.graph.removal import FUNCTIONS, remains_of, take_out
from rlprune.graph.structure import WHOLE, Block, Graph
from rlprune.graph.surgery import Slicer, install
from rlprune.tracing.coupling import Coupling
from rlprune.tracing.examples import Example, call, output_tensors
from rlprune.tracing.selection import Choice
from rlprune.utils.modules import copy_sharing_weights, evaluating, named_tensors

Shapes = list[tuple[int, ...]]
SUMS = (torch.ops.aten.add, torch.ops.aten.add_)
SPREAD = 4.0
"""Deviation of the random inputs: wide enough to tell activations apart that are alike around 0."""
REAL = 2
"""How many of the given inputs are looked at."""


def find_blocks(
    module: nn.Module, graph: Graph, coupling: Coupling, choice: Choice, example: Example, more: Sequence[Example] = ()
) -> tuple[Block, ...]:
    """The residual blocks of a network, in the order of their first groups; of nested ones the smallest.

    Args:
        module: the dense network; left as it was.
        graph: its groups.
        coupling: what was traced of it.
        choice: a block with a layer that is excluded, or not included, is none.
        example: an input of the network.
        more: real ones.
    """
    inner = {} if coupling.steered else _inner_groups(module, graph, coupling, choice)
    if not inner:
        return ()
    inputs = [example, *more][:REAL]
    trial = _copy(module)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with evaluating(trial), torch.no_grad():
            calls, shapes = _calls(trial, inner, inputs)
            found: list[Block] = []
            for name in sorted(calls, key=lambda name: len(list(trial.get_submodule(name).modules()))):
                nested = any(block.holds(name) or Block(name, ()).holds(block.name) for block in found)
                remains = None if nested else what_remains(trial.get_submodule(name), calls[name])
                if remains is not None:
                    found.append(Block(name, inner[name], remains))
            found.sort(key=lambda block: block.groups)
            return _removable(module, graph, found, inputs, shapes)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _copy(module: nn.Module) -> nn.Module:
    """A copy that nobody needs afterwards: a pass may leave things behind in modules and buffers."""
    copy = copy_sharing_weights(module)
    for part in copy.modules():
        part._buffers = {name: None if buffer is None else buffer.clone() for name, buffer in part._buffers.items()}
    return copy


def _inner_groups(module: nn.Module, graph: Graph, coupling: Coupling, choice: Choice) -> dict[str, tuple[int, ...]]:
    """Modules that could be blocks by their place, and their inner groups."""
    modules: dict[int, list[str]] = {}
    for name, part in module.named_modules(remove_duplicate=False):
        modules.setdefault(id(part), []).append(name)
    tensors: dict[int, list[str]] = {}
    for name, tensor in named_tensors(module).items():
        tensors.setdefault(id(tensor), []).append(name)
    shared = [names for names in tensors.values() if len(names) > 1]
    barred = [layer for layer in coupling.weights if choice.why_not([layer])]
    places = _places(graph)
    found = {}
    for name in (names[0] for names in modules.values() if len(names) == 1 and names[0]):
        held = Block(name, ()).holds
        groups = tuple(number for number, layers in enumerate(places) if all(map(held, layers)))
        # A group outside that is called after a layer inside could not be told from the block's own.
        named = any(held(group.name) for number, group in enumerate(graph.groups) if number not in groups)
        torn = any(0 < sum(map(held, names)) < len(names) for names in shared)
        if groups and not named and not torn and not any(map(held, barred)):
            found[name] = groups
    return found


def _places(graph: Graph) -> list[set[str]]:
    """For every group the layers that make, read or multiply its channels."""
    found = [{*group.producers, *group.consumers} for group in graph.groups]
    starts = [group.start for group in graph.groups]
    for layer, slots in [(axis.layer, axis.slots) for axis in graph.axes] + [
        (p.layer, p.slots) for p in graph.products
    ]:
        for number in {int(place) for place in _owners(starts, slots)}:
            found[number].add(layer)
    return found


def _owners(starts: list[int], slots: Any) -> Any:
    return np.unique(np.searchsorted(starts, slots[slots != WHOLE], side="right") - 1)


def _calls(
    trial: nn.Module, names: Mapping[str, Any], inputs: Sequence[Example]
) -> tuple[dict[str, list[Tensor]], list[Shapes]]:
    """What goes into every module that is called once with one tensor and gives one of the same shape.

    Returns:
        The inputs of every such module; and for every input of the network the shapes of what it gives.
    """
    seen: dict[str, list[tuple[Any, ...]]] = {name: [] for name in names}

    def note(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        plain = len(args) == 1 and not kwargs and isinstance(args[0], Tensor) and isinstance(output, Tensor)
        same = plain and args[0].is_floating_point() and (args[0].shape, args[0].dtype) == (output.shape, output.dtype)
        # As it is before the block runs, which may change it in place.
        seen[name].append((before[name],) if same else ())

    before: dict[str, Tensor] = {}

    def keep(name: str, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            before[name] = args[0].clone()

    hooks = []
    for name in names:
        part = trial.get_submodule(name)
        hooks.append(part.register_forward_pre_hook(lambda _, args, name=name: keep(name, args)))
        hooks.append(
            part.register_forward_hook(
                lambda _, args, kwargs, output, name=name: note(name, args, kwargs, output), with_kwargs=True
            )
        )
    shapes = [_shapes(call(trial, example)) for example in inputs]
    for hook in hooks:
        hook.remove()
    once = {name: mine for name, mine in seen.items() if len(mine) == len(inputs) and all(mine)}
    return {name: [given for (given,) in mine] for name, mine in once.items()}, shapes


def _shapes(output: Any) -> Shapes:
    return [tuple(tensor.shape) for tensor in output_tensors(output)]


def what_remains(block: nn.Module, inputs: Sequence[Tensor]) -> str | None:
    """What a module leaves of its input when all that it adds to it is silent.

    Args:
        block: in eval mode.
        inputs: real ones; random ones of the same shape are tried as well.

    Returns:
        As `rlprune.graph.structure.Block.remains`; None where neither the input nor an activation of it remains.
    """
    draws = torch.Generator().manual_seed(0)
    noise = (SPREAD * torch.randn(inputs[0].shape, generator=draws)).to(inputs[0])
    try:
        pairs = [(given, _silenced(block, given)) for given in (noise, *inputs)]
    # Anybody's code: a part may fail in any way on numbers that it never gets.
    except Exception:
        return None
    leaves = [name for name, part in block.named_modules() if name and not any(True for _ in part.children())]
    bare = [name for name in leaves if not named_tensors(block.get_submodule(name))]
    for remains in ("", *bare, *FUNCTIONS):
        if all(_gives(remains_of(block, remains), given, output) for given, output in pairs):
            return remains
    return None


def _gives(part: nn.Module, given: Tensor, output: Any) -> bool:
    if not isinstance(output, Tensor):
        return False
    try:
        found = part.eval()(given.clone())
    except Exception:
        return False
    return isinstance(found, Tensor) and found.shape == output.shape and torch.equal(found, output)


def _silenced(block: nn.Module, given: Tensor) -> Any:
    mine = given.clone()
    with _Silent(mine):
        return block(mine)


class _Silent(TorchDispatchMode):
    """Answers every sum of something with a tensor by that tensor."""

    def __init__(self, own: Tensor) -> None:
        super().__init__()
        # They are held, so that no other tensor comes to lie where one of them was.
        self.own, self.size, self.answered = [own], own.numel(), False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket in SUMS and len(args) > 1:
            left, right = args[:2]
            if self._is_own(left) != self._is_own(right):
                self.answered = True
                return left if self._is_own(left) else self._alone(func, left, right, kwargs)
        if self.answered and func._schema.is_mutable and args and self._is_own(args[0]):
            # What follows the sum in place: from now on it is no longer what came in.
            self.own = [own for own in self.own if not _same_memory(own, args[0])]
        return func(*args, **kwargs)

    def _is_own(self, given: Any) -> bool:
        """Whether it is the tensor, or another view of all of it."""
        if not isinstance(given, Tensor) or given.numel() != self.size:
            return False
        return any(_same_memory(given, own) for own in self.own)

    def _alone(self, func: Any, left: Any, right: Tensor, kwargs: dict[str, Any]) -> Tensor:
        """What is left of ``left + alpha * right`` without the left."""
        result = right if kwargs.get("alpha", 1) == 1 else right * kwargs["alpha"]
        if func.overloadpacket is torch.ops.aten.add_ and isinstance(left, Tensor):
            left.copy_(result)
            self.own.append(left)
            return left
        return result


def _same_memory(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def _removable(
    module: nn.Module, graph: Graph, blocks: list[Block], inputs: Sequence[Example], shapes: list[Shapes]
) -> tuple[Block, ...]:
    """The blocks without which the network really runs: somebody may ask for their parts by name."""

    def runs(some: list[Block]) -> bool:
        return not some or _runs_without(module, graph, some, inputs, shapes)

    if runs(blocks):
        return tuple(blocks)
    alone = [block for block in blocks if runs([block])]
    return tuple(alone) if runs(alone) else ()


def _runs_without(
    module: nn.Module, graph: Graph, blocks: list[Block], inputs: Sequence[Example], shapes: list[Shapes]
) -> bool:
    """Whether a network without blocks, its other groups cut in half, gives what it gives with them in shape."""
    graph = replace(graph, blocks=tuple(blocks))
    kept = np.ones(int(graph.sizes.sum()), dtype=bool)
    gone = {group for block in blocks for group in block.groups}
    for number, mine in enumerate(graph.split(kept)):
        mine[0 if number in gone else max(len(mine) // 2, 1) :] = False
    smaller = _copy(module)
    called: list[str] = []
    for block in blocks:
        # Whoever has it in a list of its own goes on calling it.
        smaller.get_submodule(block.name).register_forward_pre_hook(lambda *_: called.append("called"))
    try:
        take_out(smaller, blocks)
        slicer = Slicer(graph, named_tensors(module))
        install(smaller, module, slicer.slices(kept), features=slicer.features(kept))
        with evaluating(smaller):
            found = [_shapes(call(smaller, example)) for example in inputs]
    # Whose parts somebody asks for may fail in any way.
    except Exception:
        return False
    return found == shapes and not called
