"""Residual blocks that may be taken out whole, found by what they compute and not by how they are written.

A block is a module with one tensor in and one of the same shape out, which adds to its input what its layers make of
it. Whether that is so is tried: the module is run alone, every sum of something with its own input is answered by that
input, and what comes out must be the input itself, or an activation of it. That is what remains without the block.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.graph.removal import take_out
from rlprune.graph.structure import WHOLE, Block, Graph
from rlprune.graph.surgery import Slicer, install
from rlprune.tracing.coupling import Coupling
from rlprune.tracing.examples import Example, call, output_tensors
from rlprune.tracing.selection import Choice
from rlprune.tracing.silence import what_remains
from rlprune.utils.modules import copy_sharing_weights, evaluating, named_tensors

Shapes = list[tuple[int, ...]]
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
    seen: dict[str, list[Tensor | None]] = {name: [] for name in names}

    def before(name: str, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        plain = len(args) == 1 and not kwargs and isinstance(args[0], Tensor) and args[0].is_floating_point()
        # As it is now: the module may change it in place.
        seen[name].append(args[0].clone() if plain else None)

    def after(name: str, _: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        given = seen[name][-1]
        same = isinstance(output, Tensor) and given is not None and (given.shape, given.dtype) == _kind(output)
        seen[name][-1] = given if same else None

    hooks = []
    for name in names:
        part = trial.get_submodule(name)
        hooks.append(part.register_forward_pre_hook(partial(before, name), with_kwargs=True))
        hooks.append(part.register_forward_hook(partial(after, name)))
    shapes = [_shapes(call(trial, example)) for example in inputs]
    for hook in hooks:
        hook.remove()
    found = {name: [given for given in mine if given is not None] for name, mine in seen.items()}
    once = {name: mine for name, mine in found.items() if len(mine) == len(seen[name]) == len(inputs)}
    return once, shapes


def _kind(tensor: Tensor) -> tuple[torch.Size, torch.dtype]:
    return tensor.shape, tensor.dtype


def _shapes(output: Any) -> Shapes:
    return [tuple(tensor.shape) for tensor in output_tensors(output)]


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
