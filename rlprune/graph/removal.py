"""A residual block is taken out: what remains of it, or nothing, stands in its place."""

import copy
from collections.abc import Iterable, Mapping

from torch import nn

from rlprune.errors import UserError, unknown
from rlprune.graph.structure import Block

FUNCTIONS: dict[str, type[nn.Module]] = {
    f"nn.{kind.__name__}": kind
    for kind in (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Hardswish, nn.Tanh, nn.Sigmoid)
}
"""Activations that a block may apply to its sum by a function, for which it has no part of its own."""


def take_out(module: nn.Module, blocks: Iterable[Block]) -> None:
    """Put what remains in the place of blocks.

    Args:
        module: a network that has them; changed in place.
        blocks: which ones.

    Raises:
        UserError: the network has no such block, or the block no such part.
    """
    for block in blocks:
        put(module, block.name, remains_of(find(module, block.name, "block"), block.remains))


def find(module: nn.Module, name: str, what: str) -> nn.Module:
    """A part of a module by its name; UserError if there is none."""
    try:
        return module.get_submodule(name)
    except AttributeError:
        raise unknown(what, name, [known for known, _ in module.named_modules() if known]) from None


def remains_of(block: nn.Module, remains: str) -> nn.Module:
    """What stands in the place of a block that is taken out.

    Args:
        block: the block.
        remains: see `rlprune.graph.structure.Block`.

    Raises:
        UserError: the block has no such part, or it is no activation.
    """
    if not remains:
        return nn.Identity()
    if remains in FUNCTIONS:
        return FUNCTIONS[remains]()
    part = find(block, remains, "part of a block")
    if any(True for _ in part.parameters()):
        raise UserError(f"'{remains}' has parameters: only an activation can remain of a block")
    # The block itself may have changed its own sum; what comes in is somebody else's.
    part = copy.deepcopy(part)
    if getattr(part, "inplace", False):
        part.inplace = False  # type: ignore[assignment]
    return part


def put(module: nn.Module, name: str, part: nn.Module) -> None:
    """Put a part into a module under a name that is there."""
    owner, _, leaf = name.rpartition(".")
    module.get_submodule(owner)._modules[leaf] = part


def without(module: nn.Module, remains: Mapping[str, str]) -> None:
    """The same as `take_out`, by what a plan knows: blocks by name, and what remains of each."""
    take_out(module, [Block(name, (), left) for name, left in remains.items()])
