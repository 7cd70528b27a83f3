"""Seven photographs and what is expected of them, for the tests of images in memory and in files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rlprune.data.images import ImageSet
from rlprune.data.stream import StreamImages

MEAN, STD = (0.5, 0.25, 0.125), (0.5, 0.2, 0.1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_hand(pixels: Tensor) -> Tensor:
    """(value / 255 - mean) / std in double precision."""
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (MEAN, STD))
    return ((pixels.double() / 255 - mean) / std).float()


def together(images: ImageSet, **options: Any) -> tuple[Tensor, Tensor]:
    pairs = list(images.batches(4, **options))
    return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])


def write_photos(folder: Path) -> StreamImages:
    """Seven photographs of different shapes, as a streaming set of 96 x 96."""
    rng, paths = np.random.default_rng(0), []
    for number in range(7):
        array = rng.integers(0, 256, (100 + 10 * number, 150 - 5 * number, 3), dtype=np.uint8)
        paths.append(str(folder / f"{number}.png"))
        Image.fromarray(array).save(paths[-1])
    return replace(StreamImages.of(paths, torch.arange(7) % 2, (3, 96, 96)), mean=MEAN, std=STD)
