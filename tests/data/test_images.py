"""The image containers: normalisation, order, augmentation and what both containers have in common."""

import multiprocessing
import os
import pickle
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from rlprune.data.images import ImageSet, MemoryImages, StreamImages, open_images, opened, read_image
from rlprune.errors import UserError

MEAN, STD = (0.5, 0.25, 0.125), (0.5, 0.2, 0.1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int, size: int = 16, seed: int = 0) -> Tensor:
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=seeded(seed))


def small(count: int = 11, size: int = 16, augmentable: bool = True) -> MemoryImages:
    return MemoryImages(torch.arange(count) % 3, noise(count, size), augmentable, mean=MEAN, std=STD)


def by_hand(pixels: Tensor) -> Tensor:
    """(value / 255 - mean) / std in double precision."""
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (MEAN, STD))
    return ((pixels.double() / 255 - mean) / std).float()


def together(images: ImageSet, **options: Any) -> tuple[Tensor, Tensor]:
    pairs = list(images.batches(4, **options))
    return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])


@pytest.fixture
def photos(tmp_path: Path) -> StreamImages:
    """Seven photographs of different shapes, as a streaming set of 96 x 96."""
    rng, paths = np.random.default_rng(0), []
    for number in range(7):
        array = rng.integers(0, 256, (100 + 10 * number, 150 - 5 * number, 3), dtype=np.uint8)
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(array).save(paths[-1])
    return StreamImages(torch.arange(7) % 2, paths, (3, 96, 96), mean=MEAN, std=STD)


@pytest.fixture(params=["memory", "files"])
def images(request: pytest.FixtureRequest, photos: StreamImages) -> ImageSet:
    return small() if request.param == "memory" else photos


def test_batches_have_the_promised_form(images: Any) -> None:
    pairs = list(images.batches(4))
    assert [len(x) for x, _ in pairs] == ([4, 4, 3] if len(images) == 11 else [4, 3])
    for x, y in pairs:
        assert x.dtype == torch.float32
        assert y.dtype == torch.int64
        assert x.shape[1] == 3
        assert x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(torch.cat([y for _, y in pairs]), images.labels)


def test_memory_batches_are_normalised_pixels() -> None:
    images = small()
    torch.testing.assert_close(together(images)[0].contiguous(), by_hand(images.pixels))


def test_file_batches_are_the_resized_centre(photos: StreamImages) -> None:
    """Resize(96 * 256 // 224 = 109) and CenterCrop(96), redone with Pillow alone."""
    for path, x in zip(photos.paths, together(photos)[0], strict=True):
        with Image.open(path) as image:
            scale = 109 / min(image.size)
            width, height = (int(side * scale) for side in image.size)
            scaled = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = round((width - 96) / 2), round((height - 96) / 2)
        centre = np.asarray(scaled.crop((left, top, left + 96, top + 96)))
        torch.testing.assert_close(x.contiguous(), by_hand(torch.from_numpy(centre.copy()).permute(2, 0, 1)))


def test_a_generator_shuffles_and_repeats(images: Any) -> None:
    plain, labels = together(images)
    shuffled, new_labels = together(images, generator=seeded(1))
    again, _ = together(images, generator=seeded(1))
    assert torch.equal(shuffled, again)
    assert not torch.equal(shuffled, plain)
    order = [next(i for i, image in enumerate(plain) if torch.equal(image, moved)) for moved in shuffled]
    assert sorted(order) == list(range(len(images)))
    assert torch.equal(labels[order], new_labels)


def test_augmentation_draws_from_the_generator_alone(images: Any) -> None:
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    first, _ = together(images, augment=True, generator=seeded(1))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(99)
    second, _ = together(images, augment=True, generator=seeded(1))
    other, _ = together(images, augment=True, generator=seeded(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    low, high = by_hand(torch.zeros(3, 1, 1)), by_hand(torch.full((3, 1, 1), 255))
    assert ((first >= low - 1e-5) & (first <= high + 1e-5)).all()
    assert first.shape == together(images)[0].shape


def test_one_generator_gives_another_epoch_each_time(images: Any) -> None:
    generator = seeded(3)
    first, second = (together(images, augment=True, generator=generator)[0] for _ in range(2))
    assert not torch.equal(first, second)


def test_augmentation_without_a_generator_is_a_bug(images: Any) -> None:
    with pytest.raises(ValueError, match="generator"):
        next(images.batches(4, augment=True))


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 10), min_size=1, max_size=20), st.data())
def test_subset_and_take_agree_with_batches(chosen: list[int], data: st.DataObject) -> None:
    images, indices = small(), torch.tensor(chosen)
    x, y = together(images)
    for got_x, got_y in (images.take(indices), together(images.subset(indices))):
        assert torch.equal(got_x, x[indices])
        assert torch.equal(got_y, y[indices])
    nested = torch.tensor(data.draw(st.lists(st.integers(0, len(chosen) - 1), min_size=1, max_size=5)))
    assert torch.equal(images.subset(indices).take(nested)[0], x[indices[nested]])


def test_subset_and_take_of_files_agree_with_batches(photos: StreamImages) -> None:
    indices = torch.tensor([5, 0, 5, 2])
    x, y = together(photos)
    for got_x, got_y in (photos.take(indices), together(photos.subset(indices))):
        assert torch.equal(got_x, x[indices])
        assert torch.equal(got_y, y[indices])


def test_subsets_share_their_pixels() -> None:
    images = small()
    assert images.subset(torch.tensor([1, 2])).pixels.data_ptr() == images.pixels.data_ptr()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_holds_one_copy_for_all_subsets() -> None:
    images = small()
    part = images.subset(torch.tensor([3, 1]))
    x, y = next(part.batches(2, device="cuda"))
    torch.testing.assert_close(x.cpu(), part.take(torch.arange(2))[0])
    assert y.device.type == "cuda"
    list(images.batches(4, augment=True, generator=seeded(), device="cuda"))
    assert len(images._copies) == 1


def test_images_that_are_not_augmentable_stay_as_they_are() -> None:
    images = small(augmentable=False)
    plain, augmented = (together(images, augment=augment, generator=seeded(1)) for augment in (False, True))
    assert torch.equal(plain[0], augmented[0])
    assert torch.equal(plain[1], augmented[1])


def test_worker_processes_give_the_same_batches(photos: StreamImages) -> None:
    """They start afresh, so they cannot inherit anything random either."""
    expected = together(photos, augment=True, generator=seeded(4))
    photos.workers = 1
    got = together(photos, augment=True, generator=seeded(4))
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[1], expected[1])


def test_a_broken_file_met_while_streaming_is_named(photos: StreamImages) -> None:
    with open(photos.paths[3], "r+b") as file:
        file.truncate(200)
    with pytest.raises(UserError, match=r"3\.png"):
        list(photos.batches(4))


def test_errors_survive_the_way_between_processes() -> None:
    assert str(pickle.loads(pickle.dumps(UserError("no image")))) == "no image"


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
    Image.fromarray(noise(1, 64)[0].permute(1, 2, 0).numpy()).save(path)
    assert read_image(str(path)).size == (64, 64)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not an image"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"x\\.{suffix}"):
            read_image(str(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gone"), opened(str(tmp_path / "gone.png")):
        pass


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


def test_a_killed_reader_is_told(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{number}.png") for number in range(12)]
    for path in paths:
        Image.new("RGB", (8, 8)).save(path)
    images = StreamImages(torch.zeros(12, dtype=torch.int64), paths, (3, 70, 70), workers=1)
    batches = images.batches(1)
    next(batches)
    os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
    with pytest.raises(UserError, match=r"a process that reads images was killed.* the same command continues"):
        list(batches)


def banner(count: int, channels: int = 1) -> Tensor:
    """(N, C, 16, 40) noise."""
    return torch.randint(256, (count, channels, 16, 40), dtype=torch.uint8, generator=seeded())


def test_images_that_are_not_square_move_by_an_eighth_of_each_side() -> None:
    """2 up or down and 5 aside: 5 x 11 windows, each mirrored or not; all are found in 2,000 draws (missing: e^-11)."""
    image = banner(1)
    images = MemoryImages(
        torch.zeros(2000, dtype=torch.int64), image.expand(2000, -1, -1, -1), True, mean=(0.0,), std=(1.0,)
    )
    crops, _ = next(images.batches(2000, augment=True, generator=seeded()))
    padded = np.pad(image[0, 0].numpy(), ((2, 2), (5, 5)))
    windows = [padded[y : y + 16, x : x + 40] for y in range(5) for x in range(11)]
    expected = {part.tobytes() for window in windows for part in (window.copy(), window[:, ::-1].copy())}
    assert {crop.tobytes() for crop in (crops * 255).round().to(torch.uint8).contiguous().numpy()[:, 0]} == expected
    assert crops.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(1, 40, 80), (4, 80, 40), (3, 66, 30)])
def test_files_that_are_not_square_are_the_resized_centre(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    """Scaled without distortion until both sides are an eighth (256 / 224) larger, redone with Pillow alone."""
    channels, height, width = shape
    mode, rng, paths = {1: "L", 3: "RGB", 4: "RGBA"}[channels], np.random.default_rng(0), []
    for number, size in enumerate([(90, 60, channels), (60, 190, channels), (128, 128, channels)]):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8).squeeze()).save(paths[-1])
    images: Any = open_images(paths, torch.zeros(3, dtype=torch.int64), shape, augmentable=True, workers=0)
    assert isinstance(images, StreamImages)
    images.mean, images.std = (0.0,) * channels, (1.0,) * channels
    for path, x in zip(paths, images.take(torch.arange(3))[0], strict=True):
        with Image.open(path) as image:
            assert image.mode == mode
            scale = max(height * 256 // 224 / image.height, width * 256 // 224 / image.width)
            sides = [int(side * scale + 1e-9) for side in image.size]
            scaled = image.resize((sides[0], sides[1]), Image.Resampling.BILINEAR)
        left, top = round((sides[0] - width) / 2), round((sides[1] - height) / 2)
        centre = np.asarray(scaled.crop((left, top, left + width, top + height))).reshape(height, width, channels)
        np.testing.assert_array_equal((x * 255).round().permute(1, 2, 0).numpy(), centre)
    augmented, _ = next(images.batches(3, augment=True, generator=seeded()))
    assert augmented.shape == (3, *shape)


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
