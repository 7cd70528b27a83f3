"""Which container images get, and what is in it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rlprune.data.images import MemoryImages
from rlprune.data.opening import open_images
from rlprune.data.stream import StreamImages


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int, size: int = 16, seed: int = 0) -> Tensor:
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=seeded(seed))


def banner(count: int, channels: int = 1) -> Tensor:
    """(N, C, 16, 40) noise."""
    return torch.randint(256, (count, channels, 16, 40), dtype=torch.uint8, generator=seeded())


def test_files_are_decoded_into_memory_exactly(tmp_path: Path) -> None:
    pixels, paths = noise(300, 8), []
    for number, image in enumerate(pixels):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(paths[-1])
    images = open_images(paths, torch.zeros(300, dtype=torch.int64), (3, 8, 8), augmentable=False, workers=0)
    assert isinstance(images, MemoryImages)
    assert torch.equal(images.pixels, pixels)
    assert isinstance(open_images(paths, images.labels, (3, 65, 65), augmentable=False, workers=0), StreamImages)


def test_a_ramp_stays_a_ramp_when_arrays_grow() -> None:
    """Linear interpolation keeps a linear function; with half-pixel centres 4 -> 8 puts it at a quarter steps."""
    ramp = (torch.arange(4, dtype=torch.uint8) * 40).expand(1, 1, 4, 4)
    images: Any = open_images(ramp, torch.zeros(1, dtype=torch.int64), (3, 8, 8), augmentable=False, workers=0)
    assert images.pixels[0, 2, 5].tolist() == [0, 10, 30, 50, 70, 90, 110, 120]


def test_colours_become_grey_as_pillow_has_it() -> None:
    pixels = noise(50, 16)
    grey: Any = open_images(pixels, torch.zeros(50, dtype=torch.int64), (1, 16, 16), augmentable=False, workers=0)
    for image, found in zip(pixels, grey.pixels, strict=True):
        expected = np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L"))
        np.testing.assert_array_equal(found[0].numpy(), expected)


def test_scans_are_opaque_where_transparency_is_asked_for() -> None:
    scans = banner(3)
    found: Any = open_images(scans, torch.zeros(3, dtype=torch.int64), (4, 16, 40), augmentable=False, workers=0)
    for scan, image in zip(scans, found.pixels, strict=True):
        expected = np.asarray(Image.fromarray(scan[0].numpy()).convert("RGBA"))
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), expected)
