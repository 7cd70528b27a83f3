"""Mean and standard deviation of images, against those of NumPy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rlprune.data import cache, colours, readers
from rlprune.data.colours import measured_colours
from rlprune.data.images import MemoryImages
from rlprune.data.stream import StreamImages


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_in_memory(channels: int) -> None:
    pixels = (
        torch.randint(256, (2100, channels, 3, 5), dtype=torch.uint8) // torch.arange(1, channels + 1)[:, None, None]
    )
    found = measured_colours(MemoryImages(torch.zeros(2100), pixels.byte(), True))
    values = pixels.numpy() / 255
    np.testing.assert_allclose(found["mean"], values.mean((0, 2, 3)), atol=6e-7)
    np.testing.assert_allclose(found["std"], values.std((0, 2, 3)), atol=6e-7)


def test_images_in_files_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second of seven files, in 66 pixels: no image needs to be resized, so that the centre is what it was."""
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(cache, "MANY", 4)
    monkeypatch.setattr(colours, "FILES", 4)
    paths, rng = [], np.random.default_rng(0)
    for number in range(7):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(rng.integers(0, 256, (75, 75, 3), dtype=np.uint8)).save(paths[-1])
    images = StreamImages.of(paths, torch.zeros(7), (3, 66, 66))
    found = measured_colours(images)
    centres = [np.asarray(Image.open(path))[4:70, 4:70] / 255 for path in paths[::2]]
    np.testing.assert_allclose(found["mean"], np.mean(centres, axis=(0, 1, 2)), atol=6e-7)
    np.testing.assert_allclose(found["std"], np.std(centres, axis=(0, 1, 2)), atol=6e-7)
    monkeypatch.setattr(readers, "read_image", None)
    assert measured_colours(images) == found
