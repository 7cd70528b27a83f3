"""Multiples on machines that like some."""

from collections.abc import Callable

import pytest

from rlprune.latency import alignment as rounding
from rlprune.latency.alignment import best_multiple
from rlprune.latency.backends import Backend
from rlprune.latency.layers import Layer


def conv(channels: int, pixels: int = 8) -> Layer:
    return Layer(2, (pixels, pixels), (3, 3), (1, 1), (1, 1), (1, 1), 1, 0, (channels, channels))


def blocks(size: int) -> Callable[[int], int]:
    return lambda count: -(-count // size) * size


@pytest.mark.parametrize("size", [1, 4, 8, 16])
def test_the_block_of_a_machine_is_found(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """It computes whole blocks of outputs from whole blocks of inputs."""
    block = blocks(size)
    monkeypatch.setattr(
        rounding, "measure_layers", lambda cells, backend: {cell: block(cell[1]) * block(cell[2]) for cell in cells}
    )
    chosen, told = best_multiple([conv(64), conv(96)], Backend("onnxruntime"))
    assert chosen == size
    assert told.startswith(f"round-to auto: {size}; time per MAC on onnxruntime, batch 1, 1 thread: 1.00 with 1, ")


def test_narrow_networks_tell_nothing() -> None:
    assert best_multiple([conv(16)], Backend()) == (1, "round-to auto: 1, for all layers are too narrow to tell")
