"""Where to compute, and in which precision."""

import os
import platform
import random
from pathlib import Path

import numpy as np
import torch

from rlprune.errors import UserError, unknown

DEVICES = ("auto", "cpu", "cuda", "mps")

# Private to torch, and the third is the first one's name in torch 2.4. Where a release has none of them, float32 is
# used, which is never wrong and only slower.
_CPU_BFLOAT16_QUERIES = ("_is_amx_tile_supported", "_is_avx512_bf16_supported", "_is_cpu_support_amx_tile")


def resolve_device(name: str) -> torch.device:
    """The device a name stands for.

    Args:
        name: ``auto`` (CUDA if present, else MPS, else the CPU), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        UserError: the name is unknown, or this machine has no such device.
    """
    kind, colon, index = name.partition(":")
    if kind not in DEVICES or (colon and not (kind == "cuda" and index.isdecimal())):
        raise unknown("device", name, (*DEVICES, "cuda:0"))
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if kind == "auto":
        return torch.device(next(known for known in present if present[known]))
    if not present[kind]:
        raise UserError(f"device '{name}' is not present on this machine: use 'auto' or 'cpu'")
    if index and int(index) >= torch.cuda.device_count():
        raise UserError(
            f"device '{name}' is not present on this machine: it has {torch.cuda.device_count()} CUDA devices"
        )
    return torch.device(name)


def evaluation_dtype(device: torch.device) -> torch.dtype | None:
    """bfloat16 where the device multiplies matrices in it natively, else ``None`` for float32.

    CPUs without such instructions emulate bfloat16 and are tens of times slower with it.
    """
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    elif device.type == "cpu":
        native = any(getattr(torch.cpu, query, bool)() for query in _CPU_BFLOAT16_QUERIES)
    else:
        native = False
    return torch.bfloat16 if native else None


def machine() -> str:
    """Processor, cores and torch version."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), model)
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{os.cpu_count()} cores of {model}{gpu}, torch {torch.__version__.partition('+')[0]}"


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on every device.

    Args:
        seed: in [0, 2**32), the range NumPy takes.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
