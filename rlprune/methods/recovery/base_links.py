"""Which layers of a network can be changed one by one, and which batch norm reads what a layer gives."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from rlprune.methods.recovery.base import RepairContext
from rlprune.utils.modules import CONVOLUTIONS, NORMS, TRANSPOSED, named_tensors

LAYERS = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)
FEW = 3
"""Images that the network is run on; features may also come with a row for every window or word."""


@dataclass(frozen=True)
class Links:
    """What one run of a network has shown.

    Attributes:
        alone: convolutions, linear layers and batch norms, as PyTorch has them, that run once a pass, on one tensor
            with a row for every image, and whose tensors belong to nobody else.
        norms: layer -> the batch norm with statistics that reads its output as it is.
    """

    alone: frozenset[str]
    norms: dict[str, str]


def links_of(context: RepairContext) -> Links:
    """What a run of the dense network shows, once for all its cuts."""
    return context.once(Links, lambda: _observe(context))


def _observe(context: RepairContext) -> Links:
    # A class of somebody's own may do more: standardise its weights, or apply an activation.
    layers = {name: part for name, part in context.module.named_modules() if type(part) in (*LAYERS, *NORMS)}
    images = context.images[:FEW]
    calls: Counter[str] = Counter()
    odd: set[str] = set()
    # They are held until the end, so that no other tensor is at the same place in memory.
    given: dict[int, tuple[str, int, Tensor]] = {}
    norms: dict[str, str] = {}

    def before(name: str, layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        calls[name] += 1
        if len(args) != 1 or named or not isinstance(args[0], Tensor) or len(args[0]) != len(images):
            odd.add(name)
        elif isinstance(layer, NORMS) and layer.running_mean is not None:
            maker, version, _ = given.get(id(args[0]), ("", -1, None))
            # A function that works in place may have been at it.
            if version == args[0]._version:
                norms[maker] = name

    def after(name: str, layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and isinstance(layer, LAYERS):
            given[id(output)] = name, output._version, output

    hooks = [part.register_forward_pre_hook(partial(before, name), with_kwargs=True) for name, part in layers.items()]
    hooks += [part.register_forward_hook(partial(after, name)) for name, part in layers.items()]
    with hooked(hooks):
        context.module(images)
    owners = Counter(id(tensor) for tensor in named_tensors(context.module).values())
    alone = {name for name in calls if calls[name] == 1 and name not in odd and _is_plain(layers[name], owners)}
    return Links(frozenset(alone), {maker: norm for maker, norm in norms.items() if {maker, norm} <= alone})


def _is_plain(layer: nn.Module, owners: Counter[int]) -> bool:
    """Whether a layer has tensors of its own, none of which is computed anew at every pass."""
    computed = isinstance(layer, LAYERS) and layer._parameters.get("weight") is None
    return not computed and all(owners[id(tensor)] == 1 for tensor in (*layer.parameters(), *layer.buffers()))


@contextmanager
def hooked(hooks: list[Any]) -> Iterator[None]:
    """Within, hooks are there; afterwards they are not."""
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
