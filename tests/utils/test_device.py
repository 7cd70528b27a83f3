import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rlprune.errors import UserError
from rlprune.utils.device import evaluation_dtype, resolve_device, seed_everything


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_the_fastest_device_present(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert resolve_device("auto") == torch.device(expected)


def test_named_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("cuda") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(UserError, match=r"'cuda:2' is not present on this machine.* 2 CUDA"):
        resolve_device("cuda:2")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_a_device_this_machine_lacks(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=f"'{name}' is not present"):
        resolve_device(name)


@pytest.mark.parametrize(
    ("name", "nearest"), [("cdua", "cuda"), ("CPU ", None), ("cuda:x", "cuda"), ("cpu:0", "cpu"), ("", None)]
)
def test_unknown_names(name: str, nearest: str | None) -> None:
    with pytest.raises(UserError, match=f"unknown device '{name}'") as caught:
        resolve_device(name)
    assert nearest is None or f"did you mean '{nearest}" in str(caught.value)


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), None), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)]
)
def test_bfloat16_from_ampere_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: torch.dtype | None
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert evaluation_dtype(torch.device("cuda", 0)) is expected


def test_bfloat16_on_the_cpu_is_what_the_kernel_says_of_it() -> None:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists() or "avx2" not in cpuinfo.read_text():
        pytest.skip("the instruction sets are read from Linux on x86")
    native = re.search(r"\b(amx_bf16|avx512_bf16)\b", cpuinfo.read_text())
    # In this process it is float32 for all tests.
    ask = (
        "import torch; from rlprune.utils.device import evaluation_dtype; print(evaluation_dtype(torch.device('cpu')))"
    )
    told = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout
    assert told.strip() == str(torch.bfloat16 if native else None)


def test_mps_computes_in_float32() -> None:
    assert evaluation_dtype(torch.device("mps")) is None


def test_seeding_repeats_every_source_of_randomness() -> None:
    draws = []
    for _ in range(2):
        seed_everything(7)
        draws.append((random.random(), np.random.rand(), torch.rand(()).item()))
    assert draws[0] == draws[1]
    seed_everything(8)
    assert not {random.random(), np.random.rand(), torch.rand(()).item()} & set(draws[0])
