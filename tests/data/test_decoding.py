"""Image files as pixels: modes, and files that are no images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rlprune.data.decoding import opened, read_image
from rlprune.errors import UserError


@pytest.mark.parametrize(
    ("mode", "colour", "rgb"),
    [
        ("L", 77, (77, 77, 77)),
        ("RGBA", (1, 2, 3, 9), (1, 2, 3)),
        ("1", 1, (255, 255, 255)),
        ("RGB", (9, 8, 7), (9, 8, 7)),
    ],
)
def test_other_modes_become_rgb(tmp_path: Path, mode: str, colour: Any, rgb: tuple[int, int, int]) -> None:
    Image.new(mode, (5, 4), colour).save(tmp_path / "x.png")
    image = read_image(str(tmp_path / "x.png"))
    assert (image.mode, image.size, image.getpixel((4, 3))) == ("RGB", (5, 4), rgb)


def test_transparent_palettes_become_rgb(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "x.png", transparency=b"\x00\x80")
    assert read_image(str(tmp_path / "x.png")).getpixel((0, 0)) == (10, 20, 30)


def test_sixteen_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 40000, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(UserError, match=r"deep\.png.*8 bits"):
        read_image(str(tmp_path / "deep.png"))


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "ppm", "tif"])
def test_unreadable_files_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(torch.randint(256, (64, 64, 3), dtype=torch.uint8).numpy()).save(path)
    assert read_image(str(path)).size == (64, 64)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not an image"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"x\\.{suffix}"):
            read_image(str(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gone"), opened(str(tmp_path / "gone.png")):
        pass


def test_more_pixels_than_pillow_allows_are_refused_at_the_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("1", (40, 30)).save(tmp_path / "large.png")
    for limit in (1199, 500):  # Pillow itself only warns up to twice the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(UserError, match=r"large.png' cannot be read.*1200 pixels"), opened(f"{tmp_path}/large.png"):
            pass
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1200)
    assert read_image(str(tmp_path / "large.png")).size == (40, 30)


def test_a_program_is_no_image_whatever_it_is_called(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "page.png", format="EPS")
    with pytest.raises(UserError, match=r"page\.png' cannot be read"):
        read_image(str(tmp_path / "page.png"))
    Image.new("RGB", (8, 8)).save(tmp_path / "gif.jpg", format="GIF")  # as in some well-known data sets
    assert read_image(str(tmp_path / "gif.jpg")).size == (8, 8)
