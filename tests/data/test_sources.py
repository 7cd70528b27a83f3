"""Where images come from: sets known by name, folders, and every way a name or a folder can be wrong."""

import hashlib
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlprune.data.sources import Source, find_source, stratified
from rlprune.errors import UserError

Write = Callable[..., None]


def find(name: str, *, root: Path | None = None, download: bool = False, image_size: int | None = None) -> Source:
    return find_source(name, root, download, image_size)


def fails(match: str, name: str, **options: Any) -> None:
    with pytest.raises(UserError, match=match):
        find(name, **options)


def test_digits_are_all_there_and_stratified() -> None:
    """The counts a class are those of the UCI description of the 1,797 scans; the scans are those of scikit-learn."""
    from sklearn.datasets import load_digits

    published = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    digits = find("digits")
    seen, unseen = (torch.bincount(labels, minlength=10) for labels in (digits.train_labels, digits.test_labels))
    assert (seen + unseen).tolist() == published
    assert len(digits.test) == 360
    assert (unseen - torch.tensor(published) / 5).abs().max() <= 1
    assert (digits.image_size, digits.classes) == (32, tuple("0123456789"))
    assert not digits.augmentable

    bunch, both = load_digits(), [torch.as_tensor(part).numpy() for part in (digits.train, digits.test)]
    assert [part.dtype for part in both] == [np.uint8] * 2
    found = sorted(np.concatenate(both)[:, 0].reshape(-1, 64).astype(int).tolist())
    assert found == sorted(np.floor(bunch.data * 255 / 16 + 0.5).astype(int).tolist())


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 30), min_size=2, max_size=6), st.data())
def test_every_class_gets_its_share(sizes: Any, data: st.DataObject) -> None:
    """Shares t * n rounded to the nearest, |error| <= 1/2 each, that add up: off the quota by at most (k - 1) / 2."""
    labels = torch.cat([torch.full((size,), label) for label, size in enumerate(sizes)])
    count = data.draw(st.integers(1, len(labels)))
    drawn, rest = stratified(labels, count, torch.Generator().manual_seed(0))
    assert len(drawn) == count
    assert sorted([*drawn.tolist(), *rest.tolist()]) == list(range(len(labels)))
    assert [*drawn.tolist(), *rest.tolist()] == [*sorted(drawn.tolist()), *sorted(rest.tolist())]
    found = torch.bincount(labels[drawn], minlength=len(sizes))
    quota = torch.tensor(sizes) * count / len(labels)
    assert (found - quota).abs().max() <= (len(sizes) - 1) / 2 + 1e-4


def test_a_folder(pets: Path) -> None:
    source = find(f"folder:{pets}")
    assert source.classes == ("cat", "dog")
    names = [Path(str(path)).relative_to(pets).as_posix() for path in source.train]
    assert names == [f"train/cat/{n:03}.png" for n in range(30)] + [f"train/dog/{n:03}.png" for n in range(10)]
    assert source.train_labels.tolist() == [0] * 30 + [1] * 10
    assert source.test_labels.tolist() == [0] * 4 + [1] * 4
    assert source.augmentable


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [([(28, 28), (28, 28)], 28), ([(20, 28), (20, 28)], 28), ([(28, 28), (30, 28)], 224), ([(64, 64)] * 2, 64)],
)
def test_the_size_of_a_folder(tmp_path: Path, write_images: Write, sizes: Any, expected: int) -> None:
    for part in ("train", "test"):
        for name, size in zip("ab", sizes, strict=True):
            write_images(tmp_path / part / name, 2, size=size, mode="L")
    assert find(f"folder:{tmp_path}").image_size == expected
    assert find(f"folder:{tmp_path}", image_size=17).image_size == 17


def test_test_is_preferred_to_val(pets: Path, write_images: Write) -> None:
    write_images(pets / "val/mouse", 1)
    assert len(find(f"folder:{pets}").test) == 8


def test_files_that_are_no_images_are_ignored(pets: Path) -> None:
    before = find(f"folder:{pets}")
    (pets / "train/cat/notes.txt").write_text("none")
    (pets / "train/cat/._000.png").write_text("a resource fork")
    (pets / "train/.hidden").mkdir()
    assert find(f"folder:{pets}").digest == before.digest


def test_unknown_names(pets: Path) -> None:
    fails("did you mean 'cifar10'.*folder:PATH", "cifar-10")
    fails("folder:.*pets", str(pets))
    fails("does not exist", "folder:")


def test_folders_that_cannot_be_used(pets: Path, write_images: Write) -> None:
    name = f"folder:{pets}"
    fails("does not exist.*train/CLASS", f"{name}/nowhere")
    fails("is a file", f"{name}/train/cat/000.png")
    fails("no train and no test", f"{name}/train")
    shutil.rmtree(pets / "test")
    fails("no test", name)
    write_images(pets / "val/cat", 1)
    fails("val lacks dog", name)
    write_images(pets / "val/fox", 1)
    fails("val lacks dog; train lacks fox", name)
    (pets / "val/fox").rename(pets / "val/dog")
    find(name)
    (pets / "val/dog/000.png").unlink()
    fails(r"no images in '.*val/dog'.*\.png", name)


def test_folders_without_two_classes(tmp_path: Path, write_images: Write) -> None:
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
    fails("has 0 classes", f"folder:{tmp_path}")
    for part in ("train", "test"):
        write_images(tmp_path / part / "only", 2)
    fails("has 1 classes", f"folder:{tmp_path}")


def test_sets_in_memory_stay_small() -> None:
    fails("96.*at most 64", "digits", image_size=96)


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
    data = rng.integers(0, 256, (30, 3072), dtype=np.uint8)
    names = ["data_batch_1", "data_batch_2", "test_batch", "batches.meta"]
    contents: list[Any] = [{"data": data[i : i + 10], "labels": [*range(10)]} for i in (0, 10, 20)]
    contents.append({"label_names": [f"class {i}" for i in range(10)]})
    for name, content in zip(names, contents, strict=True):
        (base / name).write_bytes(pickle.dumps(content))
    sums = [hashlib.md5((base / name).read_bytes()).hexdigest() for name in names]
    monkeypatch.setattr(CIFAR10, "train_list", [list(pair) for pair in zip(names[:2], sums[:2], strict=True)])
    monkeypatch.setattr(CIFAR10, "test_list", [[names[2], sums[2]]])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": names[3], "key": "label_names", "md5": sums[3]})

    source = find("cifar10", root=tmp_path)
    assert (source.classes[3], source.image_size, source.augmentable) == ("class 3", 32, True)
    np.testing.assert_array_equal(torch.as_tensor(source.train), data[:20].reshape(20, 3, 32, 32))
    np.testing.assert_array_equal(torch.as_tensor(source.test), data[20:].reshape(10, 3, 32, 32))
    assert source.train_labels.tolist() == [*range(10)] * 2
    (base / names[0]).write_bytes(b"tampered with")  # its checksum is checked before it is unpickled
    fails("cifar10 is not in", "cifar10", root=tmp_path)


def test_fashion_mnist_as_torchvision_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        classes = ("shirt", "shoe")

        def __init__(self, root: Path, train: bool, download: bool) -> None:
            self.data = torch.arange(20, dtype=torch.uint8)[:, None, None].expand(20, 28, 28) * 10
            self.targets = torch.arange(20) % 2

    monkeypatch.setattr("torchvision.datasets.FashionMNIST", Fake)
    source = find("fashion-mnist")
    assert torch.equal(torch.as_tensor(source.test)[7], torch.full((1, 28, 28), 70, dtype=torch.uint8))
    assert (source.test_labels[7].item(), source.image_size) == (1, 32)
