"""What runs a network where its latency counts: torch as it is, torch.compile, or ONNX Runtime."""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlprune.errors import UserError
from rlprune.utils.modules import copy_module
from rlprune.utils.shapes import Shape

NAMES = ("torch", "compile", "onnxruntime")
Run = Callable[[], object]
"""One forward pass; it returns when the result is there."""


@dataclass(frozen=True)
class Backend:
    """How a network is run where it is timed.

    Attributes:
        name: one of `NAMES`.
        batch: images at once.
        threads: of the backend, on a CPU.
        device: cpu, cuda, cuda:N or mps.
    """

    name: str = NAMES[0]
    batch: int = 1
    threads: int = 1
    device: str = "cpu"

    def __str__(self) -> str:
        where = f"{self.threads} thread{'s' * (self.threads > 1)}" if self.device == "cpu" else self.device
        return f"{self.name}, batch {self.batch}, {where}"

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON can hold it."""
        return {"backend" if key == "name" else key: value for key, value in asdict(self).items()}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> "Backend":
        """What `as_dict` gave, back."""
        return Backend(**{"name" if key == "backend" else key: value for key, value in data.items()})


def make_run(module: nn.Module, shape: Shape, backend: Backend) -> Run:
    """A forward pass of a network over noise, ready to be timed.

    Args:
        module: in eval mode; left as it was.
        shape: (C, H, W) of an image.
        backend: how it is run; torch's threads are those of the process.

    Raises:
        UserError: the backend does not work here, or not with this network; says why.
    """
    images = torch.randn(backend.batch, *shape, generator=torch.Generator().manual_seed(0))
    if backend.name == "onnxruntime":
        return _onnxruntime(module, images, shape, backend)
    device = torch.device(backend.device)
    # As `rlprune.load` gives it, not in the memory format that suits training here.
    module = copy_module(module).to(device).to(memory_format=torch.contiguous_format).eval()
    images = images.to(device)
    network = torch.compile(module) if backend.name == "compile" else module

    def run() -> object:
        with torch.inference_mode():
            logits = network(images)
        wait_for(device)
        return logits

    if backend.name == "compile":
        _try(run)
    return run


def wait_for(device: torch.device) -> None:
    """Return when a device has done what it was told to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def device_for(backend: str, device: torch.device) -> str:
    """Where a backend runs if nobody insists: on a device, or on the CPU where it knows no other."""
    if backend != "onnxruntime" or device.type == "cpu":
        return str(device)
    from rlprune.exports.onnx import has_device

    return str(device) if has_device(device.type) else "cpu"


def _try(run: Run) -> None:
    try:
        run()
    except Exception as error:
        # Whatever is missing, a compiler above all, ends in an exception of its own kind.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise UserError(f"torch.compile does not work here: {lines[0]}") from None


def _onnxruntime(module: nn.Module, images: torch.Tensor, shape: Shape, backend: Backend) -> Run:
    from rlprune.exports.onnx import INPUT, open_session, save_onnx
    from rlprune.gating.masked import traceable

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        save_onnx(traceable(copy_module(module).cpu()), shape, path)
        session = open_session(path, backend.threads, backend.device)
    feed = {INPUT: images.numpy()}
    return lambda: session.run(None, feed)
