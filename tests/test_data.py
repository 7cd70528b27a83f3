"""Loading by name: normalisation, splits, fingerprints and every way a name or a folder can be wrong."""

import hashlib
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rlprune.data import Dataset, _stratified, load_data
from rlprune.errors import UserError
from rlprune.images import MemoryImages, StreamImages


def write_images(
    folder: Path, count: int, *, size: tuple[int, int] = (8, 8), mode: str = "RGB", suffix: str = "png", seed: int = 0
) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        array = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(array).convert(mode).save(folder / f"{number:03}.{suffix}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, cat with 30 and dog with 10 training images of 8 x 8, and 4 test images each."""
    root = tmp_path / "pets"
    for seed, (part, name, count) in enumerate(
        [("train", "cat", 30), ("train", "dog", 10), ("test", "cat", 4), ("test", "dog", 4)]
    ):
        write_images(root / part / name, count, seed=seed)
    return root


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits")


def rows(images: Any) -> set[int]:
    assert images.rows is not None
    return set(images.rows.tolist())


def same(a: Dataset, b: Dataset) -> bool:
    parts = ("train", "calibration", "search")
    return all(torch.equal(getattr(a, part).rows, getattr(b, part).rows) for part in parts)


def test_digits_are_all_there_and_stratified(digits: Dataset) -> None:
    """The counts a class are those of the UCI description of the 1,797 scans."""
    published = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    counts = [torch.bincount(part.labels, minlength=10) for part in (digits.train, digits.search, digits.test)]
    assert torch.stack(counts).sum(0).tolist() == published
    assert len(digits.test) == 360
    assert (counts[2] - torch.tensor(published) / 5).abs().max() <= 1
    assert digits.image_size == 32
    assert digits.classes == tuple("0123456789")
    assert (digits.train_epochs, digits.finetune_epochs) == (4, 4)


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


def test_digits_are_never_mirrored(digits: Dataset) -> None:
    """Each augmented digit lies on some shift of its original; of its mirror image none does."""
    part: Any = digits.train.subset(torch.arange(200))
    plain = part.pixels[part.rows]
    augmented = part.batches(200, augment=True, generator=torch.Generator())
    images, _ = next(augmented)
    order = torch.randperm(200, generator=torch.Generator())
    ground = torch.nn.functional.pad(plain[order, 0], [4] * 4)
    mean, std = digits.mean[0], digits.std[0]
    seen = ((images[:, 0] * std + mean) * 255).round().to(torch.uint8)
    shifts = [(top, left) for top in range(9) for left in range(9)]
    hits = [(seen == ground[:, t : t + 32, left : left + 32]).all(-1).all(-1) for t, left in shifts]
    assert torch.stack(hits).any(0).all()


def test_training_images_are_normalised(digits: Dataset) -> None:
    """All images the mean and deviation come from: training and search images together."""
    pixels = torch.cat([part.take(torch.arange(len(part)))[0] for part in (digits.train, digits.search)]).double()
    torch.testing.assert_close(pixels.mean((0, 2, 3)), torch.zeros(3, dtype=torch.float64), atol=1e-5, rtol=0)
    torch.testing.assert_close(pixels.std((0, 2, 3)), torch.ones(3, dtype=torch.float64), atol=1e-5, rtol=0)


def test_splits_are_disjoint_and_calibration_is_trained_on(digits: Dataset) -> None:
    assert rows(digits.train).isdisjoint(rows(digits.search))
    assert len(rows(digits.train)) + len(rows(digits.search)) == 1437
    assert rows(digits.calibration) < rows(digits.train)
    assert (len(digits.search), len(digits.calibration)) == (1437 // 20, 1437 // 20)


def test_splits_follow_the_seed_and_the_test_images_do_not(digits: Dataset) -> None:
    again, other = load_data("digits"), load_data("digits", seed=1)
    assert same(digits, again)
    assert digits.fingerprint == again.fingerprint
    assert rows(digits.search) != rows(other.search)
    assert digits.fingerprint != other.fingerprint
    everything = torch.arange(360)
    assert torch.equal(digits.test.take(everything)[0], other.test.take(everything)[0])
    assert (digits.mean, digits.std) == (other.mean, other.std)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 30), min_size=2, max_size=6), st.data())
def test_every_class_gets_its_share(sizes: Any, data: st.DataObject) -> None:
    """Shares t * n rounded to the nearest, |error| <= 1/2 each, that add up: off the quota by at most (k - 1) / 2."""
    labels = torch.cat([torch.full((size,), label) for label, size in enumerate(sizes)])
    count = data.draw(st.integers(1, len(labels)))
    chosen = _stratified(labels, count, torch.Generator().manual_seed(0))
    assert len(set(chosen.tolist())) == count
    found = torch.bincount(labels[chosen], minlength=len(sizes))
    quota = torch.tensor(sizes) * count / len(labels)
    assert (found - quota).abs().max() <= (len(sizes) - 1) / 2 + 1e-4


def test_a_folder(folder: Path) -> None:
    data = load_data(f"folder:{folder}", search_images=8, calibration_images=4)
    assert data.name == f"folder:{folder}"
    assert data.classes == ("cat", "dog")
    assert data.image_size == 8
    assert torch.bincount(data.search.labels).tolist() == [6, 2]
    assert torch.bincount(data.calibration.labels).tolist() == [3, 1]
    assert torch.bincount(data.train.labels).tolist() == [24, 8]
    assert (data.train_epochs, data.finetune_epochs) == (30, 10)
    paths = sorted((folder / "train/cat").iterdir()) + sorted((folder / "train/dog").iterdir())
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths]) / 255
    np.testing.assert_allclose(data.mean, pixels.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(data.std, pixels.std((0, 1, 2)), atol=1e-6)
    assert isinstance(data.train, MemoryImages)
    assert data.train.flip


def test_default_sizes_of_the_splits(folder: Path) -> None:
    data = load_data(f"folder:{folder}")  # 5 % of 40 images are 2: as many as classes
    assert (len(data.train), len(data.search), len(data.calibration)) == (38, 2, 2)


def test_given_colours_are_used(folder: Path) -> None:
    data = load_data(f"folder:{folder}", mean=[0.5, 0.4, 0.3], std=(0.1, 0.2, 0.3))
    assert (data.mean, data.std) == ((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
    with Image.open(folder / "test/cat/000.png") as image:
        red = int(np.asarray(image)[0, 0, 0])
    assert data.test.take(torch.tensor([0]))[0][0, 0, 0, 0].item() == pytest.approx((red / 255 - 0.5) / 0.1, rel=1e-5)


def test_mean_alone_may_be_given(folder: Path) -> None:
    data, measured = (load_data(f"folder:{folder}", mean=mean) for mean in ([0.0, 0.0, 0.0], None))
    assert data.mean == (0.0, 0.0, 0.0)
    assert data.std == measured.std


def test_the_fingerprint_tells_data_apart(folder: Path) -> None:
    name, seen = f"folder:{folder}", set()
    moved = folder.parent / "moved"
    shutil.copytree(folder, moved)
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
    write_images(folder / "test/cat/more", 1, size=(9, 8), seed=9)
    seen.add(load_data(name).fingerprint)
    assert len(seen | {first}) == 7


def test_large_images_are_streamed(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [([(28, 28), (28, 28)], 28), ([(20, 28), (20, 28)], 28), ([(28, 28), (30, 28)], 224), ([(64, 64)] * 2, 64)],
)
def test_the_size_of_a_folder(tmp_path: Path, sizes: Any, expected: int) -> None:
    for part in ("train", "test"):
        for name, size in zip("ab", sizes, strict=True):
            write_images(tmp_path / part / name, 2, size=size, mode="L")
    assert load_data(f"folder:{tmp_path}").image_size == expected


def test_test_is_preferred_to_val(folder: Path) -> None:
    write_images(folder / "val/mouse", 1)
    assert len(load_data(f"folder:{folder}").test) == 8


def test_files_that_are_no_images_are_ignored(folder: Path) -> None:
    before = load_data(f"folder:{folder}")
    (folder / "train/cat/notes.txt").write_text("none")
    (folder / "train/cat/._000.png").write_text("a resource fork")
    (folder / "train/.hidden").mkdir()
    assert load_data(f"folder:{folder}").fingerprint == before.fingerprint


def fails(match: str, name: str, **options: Any) -> None:
    with pytest.raises(UserError, match=match):
        load_data(name, **options)


def test_unknown_names(folder: Path) -> None:
    fails("did you mean 'cifar10'.*folder:PATH", "cifar-10")
    fails("folder:.*pets", str(folder))
    fails("does not exist", "folder:")


def test_folders_that_cannot_be_used(folder: Path) -> None:
    name = f"folder:{folder}"
    fails("does not exist.*train/CLASS", f"{name}/nowhere")
    fails("is a file", f"{name}/train/cat/000.png")
    fails("no train and no test", f"{name}/train")
    shutil.rmtree(folder / "test")
    fails("no test", name)
    write_images(folder / "val/cat", 1)
    fails("val lacks dog", name)
    write_images(folder / "val/fox", 1)
    fails("val lacks dog; train lacks fox", name)
    (folder / "val/fox").rename(folder / "val/dog")
    load_data(name)
    (folder / "val/dog/000.png").unlink()
    fails(r"no images in '.*val/dog'.*\.png", name)


def test_folders_without_two_classes(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
    fails("has 0 classes", f"folder:{tmp_path}")
    for part in ("train", "test"):
        write_images(tmp_path / part / "only", 2)
    fails("has 1 classes", f"folder:{tmp_path}")


@pytest.mark.parametrize("path", ["train/cat/000.png", "test/dog/003.png"])
def test_a_truncated_image_is_named(folder: Path, path: str) -> None:
    content = (folder / path).read_bytes()
    (folder / path).write_bytes(content[: len(content) // 2])
    fails(f"{path}.*cannot be read", f"folder:{folder}")


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
        ({"calibration_images": 2000}, "2000 calibration"),
        ({"search_images": 0}, "search_images is 0"),
        ({"calibration_images": -1}, "calibration_images is -1"),
        ({"image_size": 0}, "image_size is 0"),
        ({"image_size": 96}, "96.*at most 64"),
        ({"mean": [0.5]}, r"mean is 0\.5: expected three"),
        ({"mean": [0, 0, float("nan")]}, "mean is"),
        ({"std": [1, 0, 1]}, "std is 1, 0, 1: expected three numbers above 0"),
    ],
)
def test_options_that_cannot_be_used(options: dict[str, Any], match: str) -> None:
    fails(match, "digits", **options)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion-mnist"])
def test_sets_that_are_not_there(tmp_path: Path, name: str) -> None:
    fails("--download.*--data-root", name, root=tmp_path)


def test_imagenet_cannot_be_downloaded(tmp_path: Path) -> None:
    fails("archives.*--data-root", "imagenet", root=tmp_path, download=True)


def test_the_default_root_is_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / name)
    fails(str(tmp_path / "rlprune" / "data"), "cifar10")


def test_cifar10_as_torchvision_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the published layout (1,024 red, green, then blue bytes a row) with small contents."""
    from torchvision.datasets import CIFAR10

    base, rng = tmp_path / CIFAR10.base_folder, np.random.default_rng(0)
    base.mkdir()
    data = rng.integers(0, 256, (40, 3072), dtype=np.uint8)
    names = ["data_batch_1", "data_batch_2", "test_batch", "batches.meta"]
    contents = [
        {"data": data[start : start + 10], "labels": [i % 10 for i in range(10)]} if start < 30 else {}
        for start in (0, 10, 20, 30)
    ]
    contents[3] = {"label_names": [f"class {i}" for i in range(10)]}
    sums = []
    for name, content in zip(names, contents, strict=True):
        (base / name).write_bytes(pickle.dumps(content))
        sums.append(hashlib.md5((base / name).read_bytes()).hexdigest())
    monkeypatch.setattr(CIFAR10, "train_list", [list(pair) for pair in zip(names[:2], sums[:2], strict=True)])
    monkeypatch.setattr(CIFAR10, "test_list", [[names[2], sums[2]]])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": names[3], "key": "label_names", "md5": sums[3]})

    loaded = load_data("cifar10", root=tmp_path, search_images=10)
    assert loaded.classes[3] == "class 3"
    assert (len(loaded.train), len(loaded.search), len(loaded.test)) == (10, 10, 10)
    assert sorted(loaded.search.labels.tolist()) == list(range(10))
    assert (loaded.train_epochs, loaded.finetune_epochs) == (12, 6)
    test = loaded.test.take(torch.arange(10))[0]
    green = (data[20:30, 1024 : 2 * 1024].reshape(10, 32, 32) / 255 - loaded.mean[1]) / loaded.std[1]
    np.testing.assert_allclose(test[:, 1].numpy(), green, atol=1e-5)
    (base / names[0]).write_bytes(b"tampered with")  # its checksum is checked before it is unpickled
    fails("cifar10 is not in", "cifar10", root=tmp_path)


def test_fashion_mnist_as_torchvision_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        classes = ("shirt", "shoe")

        def __init__(self, root: Path, train: bool, download: bool) -> None:
            self.data = torch.arange(20, dtype=torch.uint8)[:, None, None].expand(20, 28, 28) * 10
            self.targets = torch.arange(20) % 2

    monkeypatch.setattr("torchvision.datasets.FashionMNIST", Fake)
    loaded = load_data("fashion-mnist", mean=[0, 0, 0], std=[1, 1, 1])
    images, labels = loaded.test.take(torch.tensor([7]))
    assert images.shape == (1, 3, 32, 32)
    torch.testing.assert_close(images.contiguous(), torch.full((1, 3, 32, 32), 70 / 255))
    assert labels.item() == 1
