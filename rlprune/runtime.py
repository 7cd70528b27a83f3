"""What runs a network where its latency counts: torch as it is, torch.compile, or ONNX Runtime."""

import copy
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlprune.errors import UserError
from rlprune.settings import BACKENDS

Run = Callable[[], object]
"""One forward pass; it returns when the result is there."""


@dataclass(frozen=True)
class Runtime:
    """How a network is run where it is timed.

    Attributes:
        backend: one of `BACKENDS`.
        batch: images at once.
        threads: of the backend, on a CPU.
        device: cpu, cuda, cuda:N or mps.
    """

    backend: str = BACKENDS[0]
    batch: int = 1
    threads: int = 1
    device: str = "cpu"

    def __str__(self) -> str:
        where = f"{self.threads} thread{'s' * (self.threads > 1)}" if self.device == "cpu" else self.device
        return f"{self.backend}, batch {self.batch}, {where}"

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON can hold it; `Runtime(**...)` reads it back."""
        return asdict(self)


def make_run(module: nn.Module, image_size: int, runtime: Runtime) -> Run:
    """A forward pass of a network over noise, ready to be timed.

    Args:
        module: in eval mode; left as it was.
        image_size: pixels a side.
        runtime: how it is run; torch's threads are those of the process.

    Raises:
        UserError: the backend does not work here, or not with this network; says why.
    """
    images = torch.randn(runtime.batch, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    if runtime.backend == "onnxruntime":
        return _onnxruntime(module, images, runtime)
    device = torch.device(runtime.device)
    # As `rlprune.load` gives it, not in the memory format that suits training here.
    module = copy.deepcopy(module).to(device).to(memory_format=torch.contiguous_format).eval()
    images = images.to(device)
    network = torch.compile(module) if runtime.backend == "compile" else module

    def run() -> object:
        with torch.inference_mode():
            logits = network(images)
        wait_for(device)
        return logits

    if runtime.backend == "compile":
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
    from rlprune.onnx_export import has_device

    return str(device) if has_device(device.type) else "cpu"


def _try(run: Run) -> None:
    try:
        run()
    except Exception as error:
        # Whatever is missing, a compiler above all, ends in an exception of its own kind.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise UserError(f"torch.compile does not work here: {lines[0]}") from None


def _onnxruntime(module: nn.Module, images: torch.Tensor, runtime: Runtime) -> Run:
    from rlprune.onnx_export import INPUT, open_session, save_onnx
    from rlprune.traceable import traceable

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        save_onnx(traceable(copy.deepcopy(module).cpu()), images.shape[-1], path)
        session = open_session(path, runtime.threads, runtime.device)
    feed = {INPUT: images.numpy()}
    return lambda: session.run(None, feed)
