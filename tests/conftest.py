from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

# Tensors as small as those of the tests are slower on several threads, and much slower on a busy machine.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """A test that draws without a seed of its own still draws the same every time."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def write_images() -> Callable[..., None]:
    """Fills a new folder with ``count`` images of noise, ``size`` pixels wide and high."""

    def write(
        folder: Path,
        count: int,
        *,
        size: tuple[int, int] = (8, 8),
        mode: str = "RGB",
        suffix: str = "png",
        seed: int = 0,
    ) -> None:
        folder.mkdir(parents=True)
        rng = np.random.default_rng(seed)
        for number in range(count):
            array = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(array).convert(mode).save(folder / f"{number:03}.{suffix}")

    return write


@pytest.fixture
def pets(tmp_path: Path, write_images: Callable[..., None]) -> Path:
    """Two classes, cat with 30 and dog with 10 training images of 8 x 8, and 4 test images each."""
    root = tmp_path / "pets"
    for seed, (part, name, count) in enumerate(
        [("train", "cat", 30), ("train", "dog", 10), ("test", "cat", 4), ("test", "dog", 4)]
    ):
        write_images(root / part / name, count, seed=seed)
    return root
