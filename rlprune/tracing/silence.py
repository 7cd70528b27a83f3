"""What a module leaves of its input when all that it adds to it is silent, found by running it so."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rlprune.graph.removal import FUNCTIONS, remains_of
from rlprune.utils.modules import named_tensors

SUMS = (torch.ops.aten.add, torch.ops.aten.add_)
SPREAD = 4.0
"""Deviation of the random inputs: wide enough to tell activations apart that are alike around 0."""


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
