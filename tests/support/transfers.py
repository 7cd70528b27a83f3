"""What a host and a device say to each other, without a device: meta tensors stand for those that are there."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

META = torch.device("meta")
GENERATOR: Any = SimpleNamespace(device=META)
"""Stands for the device's own generator: meta tensors have none."""
aten = torch.ops.aten


class Transfers(TorchDispatchMode):
    """Within, notes every copy between devices, and whether the host waits for it, and values that are read back.

    Args:
        device: whose values.

    Attributes:
        seen: "copy", "copy, waited for" and "value read".
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is aten._local_scalar_dense.default and args[0].device == self.device:
            self.seen.append("value read")
        result = func(*args, **kwargs)
        if func is aten._to_copy.default and result.device != args[0].device:
            self.seen.append("copy" if kwargs.get("non_blocking") else "copy, waited for")
        if func is aten.copy_.default and args[0].device != args[1].device:
            self.seen.append("copy" if args[2:] == (True,) or kwargs.get("non_blocking") else "copy, waited for")
        return result


@contextmanager
def watched(device: torch.device = META) -> Iterator[Callable[[], list[str]]]:
    """Within, gives what was seen of a device since it was asked last; the device's generator is `GENERATOR`."""
    with pytest.MonkeyPatch.context() as patch, Transfers(device) as transfers:
        for name in ("randperm", "randint"):
            patch.setattr(torch, name, _drawing(getattr(torch, name)))

        def since() -> list[str]:
            seen, transfers.seen = transfers.seen, []
            return seen

        yield since


def _drawing(draw: Callable[..., Any]) -> Callable[..., Any]:
    def drawn(*args: Any, generator: Any = None, **kwargs: Any) -> Any:
        if generator is not GENERATOR:
            return draw(*args, generator=generator, **kwargs)
        assert torch.device(kwargs["device"]) == META
        return draw(*args, **kwargs)

    return drawn
