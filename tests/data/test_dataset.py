"""Loading by name: normalisation, splits, fingerprints and options and images that cannot be used."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rlprune.data.dataset import Dataset, _split, load_data
from rlprune.data.images import MemoryImages
from rlprune.data.sources import Source
from rlprune.data.stream import StreamImages
from rlprune.errors import UserError


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits")


def rows(images: Any) -> set[int]:
    assert images.rows is not None
    return set(images.rows.tolist())


def same(a: Dataset, b: Dataset) -> bool:
    parts = ("train", "calibration", "search")
    return all(torch.equal(getattr(a, part).rows, getattr(b, part).rows) for part in parts)


def test_digits(digits: Dataset) -> None:
    assert digits.classes == tuple("0123456789")
    assert (digits.image_size, len(digits.test)) == (32, 360)
    assert (digits.train_epochs, digits.finetune_epochs) == (4, 3)


def test_digits_show_what_was_scanned(digits: Dataset) -> None:
    """Averages of 4 x 4 pixels of an enlarged scan follow the scan: correlation above 0.95 for its own digit."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = digits.test.take(torch.arange(5))[0].mean(1)
    blocks = images.reshape(5, 8, 4, 8, 4).mean((2, 4)).reshape(5, 64)
    for block, label in zip(blocks, digits.test.labels, strict=False):
        likeness = [np.corrcoef(block, scan.ravel())[0, 1] for scan in bunch.images]
        assert max(likeness) > 0.95
        assert bunch.target[int(np.argmax(likeness))] == label


def test_digits_are_never_augmented(digits: Dataset) -> None:
    plain, augmented = (
        list(digits.train.batches(500, augment=augment, generator=torch.Generator().manual_seed(1)))
        for augment in ("none", "standard")
    )
    for (x, y), (other_x, other_y) in zip(plain, augmented, strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)


def test_training_images_are_normalised(digits: Dataset) -> None:
    """All images the mean and deviation come from: training and search images together."""
    pixels = torch.cat([part.take(torch.arange(len(part)))[0] for part in (digits.train, digits.search)]).double()
    torch.testing.assert_close(pixels.mean((0, 2, 3)), torch.zeros(3, dtype=torch.float64), atol=1e-5, rtol=0)
    torch.testing.assert_close(pixels.std((0, 2, 3)), torch.ones(3, dtype=torch.float64), atol=1e-5, rtol=0)


def test_splits_are_disjoint_and_calibration_is_trained_on(digits: Dataset) -> None:
    assert rows(digits.train).isdisjoint(rows(digits.search))
    assert len(rows(digits.train)) + len(rows(digits.search)) == 1437
    assert rows(digits.calibration) < rows(digits.train)
    assert (len(digits.search), len(digits.calibration)) == (1437 // 20, 1437 // 40)


def test_splits_follow_the_seed_and_the_test_images_do_not(digits: Dataset) -> None:
    again, other = load_data("digits"), load_data("digits", seed=1)
    assert same(digits, again)
    assert digits.fingerprint == again.fingerprint
    assert rows(digits.search) != rows(other.search)
    assert digits.fingerprint != other.fingerprint
    everything = torch.arange(360)
    assert torch.equal(digits.test.take(everything)[0], other.test.take(everything)[0])
    assert (digits.mean, digits.std) == (other.mean, other.std)


def test_a_folder(pets: Path) -> None:
    data = load_data(f"folder:{pets}", search_images=8, calibration_images=4)
    assert data.name == f"folder:{pets}"
    assert data.classes == ("cat", "dog")
    assert data.image_size == 8
    assert torch.bincount(data.search.labels).tolist() == [6, 2]
    assert torch.bincount(data.calibration.labels).tolist() == [3, 1]
    assert torch.bincount(data.train.labels).tolist() == [24, 8]
    assert (data.train_epochs, data.finetune_epochs) == (30, 10)
    paths = sorted((pets / "train/cat").iterdir()) + sorted((pets / "train/dog").iterdir())
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths]) / 255
    np.testing.assert_allclose(data.mean, pixels.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(data.std, pixels.std((0, 1, 2)), atol=1e-6)
    assert isinstance(data.train, MemoryImages)
    assert data.train.augmentable


def test_default_sizes_of_the_splits(pets: Path) -> None:
    """Of 40 images 5 % are 2, and five for each of the two classes 10: a fifth are 8."""
    data = load_data(f"folder:{pets}")
    assert (len(data.train), len(data.search), len(data.calibration)) == (32, 8, 2)


@pytest.mark.parametrize(
    ("images", "classes", "held"),
    [(50_000, 10, 500), (50_000, 100, 500), (20_000, 200, 1000), (30, 10, 10), (1_281_167, 1000, 5000)],
)
def test_search_images_are_five_a_class_where_that_leaves_most_to_train_on(
    images: int, classes: int, held: int
) -> None:
    """5 %, at least one a class on average and at most 500; then five a class, of at most a fifth of all."""
    paths, labels = [""] * images, torch.arange(images) % classes
    source = Source(tuple(map(str, range(classes))), paths, labels, paths, labels, (3, 96, 96), "")
    _, _, search = _split(source, None, None, 0)
    assert len(search) == held
    least = 5 if 5 * classes <= images / 5 else held // classes
    assert int(labels[search].bincount(minlength=classes).min()) >= least


@pytest.mark.parametrize(("images", "side", "decay"), [(60, 16, 5e-4), (60, 127, 5e-4), (60, 128, 1e-4)])
def test_weight_decay_is_that_of_imagenet_for_images_like_those(images: int, side: int, decay: float) -> None:
    part = MemoryImages(torch.arange(images), torch.zeros(images, 1, 1, 1, dtype=torch.uint8), False)
    assert dataset(part, (3, side, 16)).weight_decay == decay
    for count, usual in ((99_999, 5e-4), (100_000, 1e-4)):
        assert dataset(part.subset(torch.zeros(count, dtype=torch.int64)), (3, 32, 32)).weight_decay == usual


def dataset(train: MemoryImages, shape: tuple[int, int, int]) -> Dataset:
    return Dataset("", (), shape, (0.0,), (1.0,), train, train, train, train, 1, 1, 1, "")


def test_given_colours_are_used(pets: Path) -> None:
    data = load_data(f"folder:{pets}", mean=[0.5, 0.4, 0.3], std=(0.1, 0.2, 0.3))
    assert (data.mean, data.std) == ((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
    with Image.open(pets / "test/cat/000.png") as image:
        red = int(np.asarray(image)[0, 0, 0])
    assert data.test.take(torch.tensor([0]))[0][0, 0, 0, 0].item() == pytest.approx((red / 255 - 0.5) / 0.1, rel=1e-5)


def test_mean_alone_may_be_given(pets: Path) -> None:
    data, measured = (load_data(f"folder:{pets}", mean=mean) for mean in ([0.0, 0.0, 0.0], None))
    assert data.mean == (0.0, 0.0, 0.0)
    assert data.std == measured.std


def test_the_fingerprint_tells_data_apart(pets: Path, write_images: Callable[..., None]) -> None:
    name, seen = f"folder:{pets}", set()
    moved = pets.parent / "moved"
    shutil.copytree(pets, moved)
    first = load_data(name).fingerprint
    assert first == load_data(f"folder:{moved}").fingerprint
    assert len(first) == 16
    for change in (
        {"seed": 1},
        {"image_size": 16},
        {"search_images": 5},
        {"calibration_images": 5},
        {"std": [1, 1, 1]},
    ):
        seen.add(load_data(name, **change).fingerprint)
    write_images(pets / "test/cat/more", 1, size=(9, 8), seed=9)
    seen.add(load_data(name).fingerprint)
    assert len(seen | {first}) == 7


def test_large_images_are_streamed(tmp_path: Path, write_images: Callable[..., None]) -> None:
    for seed, part in enumerate(("train", "val")):
        for name in ("a", "b"):
            write_images(tmp_path / part / name, 3, size=(90, 70), suffix="jpg", seed=seed)
    data = load_data(f"folder:{tmp_path}", workers=0)
    assert isinstance(data.train, StreamImages)
    assert data.image_size == 224
    pixels = torch.cat([part.take(torch.arange(len(part)))[0] for part in (data.train, data.search)]).double()
    torch.testing.assert_close(pixels.mean((0, 2, 3)), torch.zeros(3, dtype=torch.float64), atol=1e-4, rtol=0)
    assert data.test.take(torch.tensor([0, 5]))[0].shape == (2, 3, 224, 224)
    assert load_data(f"folder:{tmp_path}", image_size=24).train.take(torch.tensor([0]))[0].shape == (1, 3, 24, 24)


def fails(match: str, name: str, **options: Any) -> None:
    with pytest.raises(UserError, match=match):
        load_data(name, **options)


@pytest.mark.parametrize("path", ["train/cat/000.png", "test/dog/003.png"])
def test_a_truncated_image_is_named(pets: Path, path: str) -> None:
    content = (pets / path).read_bytes()
    (pets / path).write_bytes(content[: len(content) // 2])
    fails(f"{path}.*cannot be read", f"folder:{pets}")


def test_images_of_one_colour_need_given_numbers(tmp_path: Path) -> None:
    for path in (tmp_path / part / name for part in ("train", "test") for name in ("a", "b")):
        path.mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (8, 8), (9, 9, 9)).save(path / f"{number}.png")
    fails("same value", f"folder:{tmp_path}")
    assert load_data(f"folder:{tmp_path}", std=[1, 1, 1], mean=[0, 0, 0]).classes == ("a", "b")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"search_images": 1437, "calibration_images": 1}, "1437 search.*1437 training"),
        ({"search_images": 1436, "calibration_images": 1}, "1436 search images leave 1 of 1437 training"),
        ({"calibration_images": 2000}, "2000 calibration"),
        ({"search_images": 0}, "search_images is 0"),
        ({"calibration_images": -1}, "calibration_images is -1"),
        ({"image_size": 0}, "image_size is 0"),
        ({"mean": [0.5]}, r"mean is 0\.5: expected three"),
        ({"mean": [0.5, 0.4, 0.3], "channels": 1}, r"mean is 0\.5, 0\.4, 0\.3: expected one number, for grey"),
        ({"std": [0.5], "channels": 4}, r"std is 0\.5: expected four numbers above 0, for red, green, blue and trans"),
        ({"channels": 2}, "channels is 2: expected 1 for grey, 3 for colour or 4 with transparency"),
        ({"channels": 4}, "the transparency has the same value in all training images: use three channels, or give"),
        ({"image_size": "32x"}, "image_size is 32x: expected"),
        ({"image_size": "32x96"}, "image_size is 32x96: digits is kept in memory with at most 64 pixels a side"),
        ({"mean": [0, 0, float("nan")]}, "mean is"),
        ({"std": [1, 0, 1]}, "std is 1, 0, 1: expected three numbers above 0"),
    ],
)
def test_options_that_cannot_be_used(options: dict[str, Any], match: str) -> None:
    fails(match, "digits", **options)


MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@pytest.fixture(params=MODES)
def banners(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[int, Path]:
    """Channels, and a folder of images of noise with as many of them, 20 pixels wide and 12 high."""
    channels, rng, root = request.param, np.random.default_rng(0), tmp_path / "banners"
    for part in ("train", "test"):
        for name in ("a", "b"):
            (root / part / name).mkdir(parents=True)
            for number in range(8):
                pixels = rng.integers(0, 256, (12, 20, channels), dtype=np.uint8)
                Image.fromarray(pixels.squeeze()).save(root / part / name / f"{number}.png")
    return channels, root


def test_images_that_are_neither_square_nor_in_colour(banners: tuple[int, Path]) -> None:
    channels, root = banners
    data = load_data(f"folder:{root}", image_size="12x20", channels=channels)
    assert (data.shape, data.image_size) == ((channels, 12, 20), "12x20")
    train, test = (
        np.stack([np.asarray(Image.open(path)).reshape(12, 20, channels) for path in sorted((root / part).glob("*/*"))])
        for part in ("train", "test")
    )
    np.testing.assert_allclose(data.mean, (train / 255).mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(data.std, (train / 255).std((0, 1, 2)), atol=1e-6)
    expected = (test / 255 - data.mean) / data.std
    found = data.test.take(torch.arange(16))[0].permute(0, 2, 3, 1)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)
    other = load_data(f"folder:{root}", channels=channels)
    assert other.shape == (channels, 20, 20)
    assert other.fingerprint != data.fingerprint


def test_any_file_is_read_with_the_channels_that_are_asked_for(banners: tuple[int, Path]) -> None:
    _, root = banners
    for channels, mode in MODES.items():
        colours = [0.0] * channels, [1.0] * channels
        data = load_data(f"folder:{root}", image_size="12x20", channels=channels, mean=colours[0], std=colours[1])
        with Image.open(root / "test" / "a" / "0.png") as image:
            expected = np.asarray(image.convert(mode)).reshape(12, 20, channels) / 255
        np.testing.assert_allclose(
            data.test.take(torch.tensor([0]))[0][0].permute(1, 2, 0).numpy(), expected, atol=1e-6
        )


def test_grey_scans_stay_grey(digits: Dataset) -> None:
    grey = load_data("digits", channels=1)
    assert (grey.shape, len(grey.mean)) == ((1, 32, 32), 1)
    assert grey.mean[0] == digits.mean[0]
    assert torch.equal(grey.test.take(torch.arange(9))[0][:, 0], digits.test.take(torch.arange(9))[0][:, 0])
    assert load_data("digits", channels=3).fingerprint == digits.fingerprint != grey.fingerprint


def test_the_digits_of_today_are_those_of_version_0_1_0(digits: Dataset) -> None:
    """Networks in the cache and unfinished runs know them by this."""
    assert digits.fingerprint == "39832e4a5cdbbd21"
