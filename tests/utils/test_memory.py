"""Machines whose memory is smaller than what is asked of them."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlprune.errors import UserError
from rlprune.evaluation.sliced import SliceRunner, recalibrate
from rlprune.tracing.build import build_graph
from rlprune.utils.memory import Chunks

CROWDED = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to ..."
)


class Crowded(nn.Module):
    """Doubles images, if they are few."""

    def __init__(self, most: int, error: Exception = CROWDED) -> None:
        super().__init__()
        self.most, self.error = most, error
        self.tried: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.tried.append(len(images))
        if len(images) > self.most:
            raise self.error
        return 2 * images


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory"),
        CROWDED,
        RuntimeError("could not create a primitive"),
        MemoryError(),
    ],
)
def test_without_memory_for_all_images_fewer_go_at_once(error: Exception) -> None:
    said: list[str] = []
    module, images, chunks = Crowded(6, error), torch.randn(20, 3), Chunks(250, said.append)
    assert torch.equal(chunks(module, images), 2 * images)
    assert module.tried == [20, 10, 5, 5, 5, 5]
    assert said == [
        "no memory for 20 images at once: going on with 10",
        "no memory for 10 images at once: going on with 5",
    ]
    chunks(module, images)
    assert module.tried[6:] == [5] * 4


def test_a_single_image_without_memory_is_told() -> None:
    with pytest.raises(UserError, match="no memory for a single image"):
        Chunks(250)(Crowded(0), torch.randn(3, 3))


def test_an_error_of_the_network_is_no_lack_of_memory() -> None:
    module = Crowded(1, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        Chunks(250)(module, torch.randn(3, 3))
    assert module.tried == [3]


def test_images_that_batch_norm_needs_at_once_are_counted() -> None:
    net = nn.Sequential(Crowded(8), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(256, 2)).eval()
    graph, images = build_graph(net, torch.zeros(1, 3, 8, 8)), torch.randn(9, 3, 8, 8)
    runner = SliceRunner(net, graph, images)
    for run in (lambda: recalibrate(net, images), lambda: runner.logits(np.ones(4, dtype=bool), images[:1])):
        with pytest.raises(UserError, match=r"no memory for 9 calibration images, .* --calibration-images"):
            run()
