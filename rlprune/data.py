"""Labelled images by name: read, split into training, calibration, search and test images, and normalised."""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rlprune.errors import UserError, unknown
from rlprune.images import SMALL, Colour, ImageSet, StreamImages, open_images, opened

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
EPOCHS = {"digits": (4, 4), "cifar10": (12, 6), "cifar100": (12, 6), "fashion-mnist": (12, 6), "imagenet": (90, 10)}


@dataclass(frozen=True)
class Dataset:
    """Images for one classification task.

    Args:
        name: as the user wrote it.
        classes: the names of the classes, in the order of the labels.
        image_size: pixels a side.
        mean: of each colour (red, green, blue) on the scale 0..1; the images have it subtracted.
        std: of each colour; the images are divided by it.
        train: training images, without the search images.
        calibration: some of ``train``, for the statistics of batch normalisation.
        search: held out of the training images, for the agent's reward.
        test: for the result reported at the end.
        train_epochs: how long to train a dense network by default.
        finetune_epochs: how long to fine-tune a pruned network by default.
        fingerprint: 16 hexadecimal digits that change with anything that determines the images.
    """

    name: str
    classes: tuple[str, ...]
    image_size: int
    mean: Colour
    std: Colour
    train: ImageSet
    calibration: ImageSet
    search: ImageSet
    test: ImageSet
    train_epochs: int
    finetune_epochs: int
    fingerprint: str


@dataclass(frozen=True)
class _Source:
    """What a name stands for, before any image file is decoded."""

    classes: tuple[str, ...]
    train: Sequence[str] | Tensor
    train_labels: Tensor
    test: Sequence[str] | Tensor
    test_labels: Tensor
    image_size: int
    digest: str
    flip: bool = True


def load_data(
    name: str = "digits",
    *,
    root: str | Path | None = None,
    download: bool = False,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    calibration_images: int | None = None,
    search_images: int | None = None,
    seed: int = 0,
    workers: int = 0,
) -> Dataset:
    """Loads labelled images and splits them the same way for the same seed.

    Args:
        name: ``digits``, ``cifar10``, ``cifar100``, ``fashion-mnist``, ``imagenet`` or ``folder:PATH`` with
            ``PATH/train/CLASS/*.jpg`` and ``PATH/test`` or ``PATH/val`` alike (``test`` if there are both).
        root: the folder of the sets that torchvision knows; by default in the user's cache.
        download: whether such a set may be downloaded to it.
        image_size: pixels a side; by default the size of the set's own images, or 224 for photographs.
        mean: of red, green and blue on the scale 0..1; by default that of the training images.
        std: alike.
        calibration_images: by default 5 % of the training images, at most 200.
        search_images: by default 5 % of the training images, at least one a class on average and at most 500.
        seed: decides which images are held out.
        workers: processes that read images above 64 pixels; smaller ones are kept in memory.

    Raises:
        UserError: if the images or the options cannot be used.
    """
    colours = {key: _colour(key, given) for key, given in (("mean", mean), ("std", std)) if given is not None}
    options = (("image_size", image_size), ("calibration_images", calibration_images), ("search_images", search_images))
    for option, count in options:
        if count is not None and count < 1:
            raise UserError(f"{option} is {count}: expected at least 1")
    source = _source(name, Path(root).expanduser() if root else None, download, image_size)
    kept, calibration, search = _split(source, calibration_images, search_images, seed)

    train = open_images(source.train, source.train_labels, source.image_size, flip=source.flip, workers=workers)
    test = open_images(source.test, source.test_labels, source.image_size, flip=source.flip, workers=workers)
    if len(colours) < 2:
        colours = _measured(train) | colours
    train, test = (replace(images, mean=colours["mean"], std=colours["std"]) for images in (train, test))

    kind = name.partition(":")[0]
    identity = [kind, source.digest, source.image_size, colours["mean"], colours["std"]]
    identity += [len(kept), len(calibration), len(search), len(test), seed]
    train_epochs, finetune_epochs = EPOCHS.get(kind, (30, 10))
    return Dataset(
        name=name,
        classes=source.classes,
        image_size=source.image_size,
        **colours,
        train=train.subset(kept),
        calibration=train.subset(calibration),
        search=train.subset(search),
        test=test,
        train_epochs=train_epochs,
        finetune_epochs=finetune_epochs,
        fingerprint=_digest([json.dumps(identity).encode()])[:16],
    )


def _colour(key: str, given: Sequence[float]) -> Colour:
    numbers = tuple(float(value) for value in given)
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)) or (key == "std" and min(numbers) <= 0):
        expected = "three numbers above 0" if key == "std" else "three numbers"
        raise UserError(f"{key} is {', '.join(map(str, given))}: expected {expected}, for red, green and blue")
    return numbers  # type: ignore[return-value]


def _measured(images: ImageSet) -> dict[str, Colour]:
    """Mean and standard deviation of each colour: over all images in memory, over up to 2,000 read from files."""
    if isinstance(images, StreamImages) and len(images) > 2000:
        images = images.subset(torch.linspace(0, len(images) - 1, 2000).long())
    total, squares = torch.zeros(2, 3, dtype=torch.float64)
    for batch, _ in images.batches(256):
        values = batch.double()
        total += values.sum((0, 2, 3))
        squares += values.square().sum((0, 2, 3))
    mean = total / (len(images) * values[0, 0].numel())
    variance = squares / (len(images) * values[0, 0].numel()) - mean**2
    # Six digits, so that the order of a sum on another machine does not change the fingerprint.
    found = {"mean": mean.round(decimals=6), "std": variance.clamp(min=0).sqrt().round(decimals=6)}
    if found["std"].min() == 0:
        raise UserError("a colour has the same value in all training images: give the mean and std to use")
    return {key: tuple(values.tolist()) for key, values in found.items()}


def _split(source: _Source, calibration: int | None, search: int | None, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of the images to train on, of those of them to calibrate with, and of those held out to search with."""
    labels, generator = source.train_labels, torch.Generator().manual_seed(seed)
    twentieth = len(labels) // 20
    search = search or min(500, max(len(source.classes), twentieth))
    calibration = calibration or min(200, max(1, twentieth))
    if search + calibration > len(labels):
        raise UserError(
            f"{search} search images and {calibration} calibration images are more than the {len(labels)} training "
            "images: ask for fewer or add images"
        )
    held_out = _stratified(labels, search, generator)
    kept = _without(held_out, len(labels))
    return kept, kept[_stratified(labels[kept], calibration, generator)], held_out


def _without(indices: Tensor, count: int) -> Tensor:
    rest = torch.ones(count, dtype=torch.bool)
    rest[indices] = False
    return rest.nonzero()[:, 0]


def _stratified(labels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Sorted indices of ``count`` random images, with as many of each class as Webster's method of 1832 apportions."""
    order = torch.randperm(len(labels), generator=generator)
    turn = torch.empty(len(labels), dtype=torch.float64)
    for label in labels.unique():
        members = order[labels[order] == label]
        turn[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    return order[turn[order].argsort(stable=True)[:count]].sort().values


def _source(name: str, root: Path | None, download: bool, image_size: int | None) -> _Source:
    if name.startswith("folder:"):
        return _folder(name.removeprefix("folder:"), image_size)
    if name not in EPOCHS:
        if os.path.isdir(name):
            raise UserError(f"data '{name}' is a folder: write 'folder:{name}'")
        raise unknown("data", name, [*EPOCHS, "folder:PATH"])
    if name != "imagenet" and (image_size or 0) > SMALL:
        raise UserError(f"image_size is {image_size}: {name} is kept in memory with at most {SMALL} pixels a side")
    if name == "digits":
        return _digits(image_size or 32)
    return _torchvision(name, root or _cache(), download, image_size)


def _cache() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("rlprune") / "data"


def _digits(size: int) -> _Source:
    """1,797 scans of handwritten digits with 8 x 8 pixels of 17 grey levels (Alpaydin and Kaynak 1998, UCI)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = torch.from_numpy((digits.images * 255 / 16).round().astype(np.uint8))[:, None]
    labels = torch.from_numpy(digits.target)
    test = _stratified(labels, math.ceil(len(labels) / 5), torch.Generator().manual_seed(0))
    train = _without(test, len(labels))
    classes = tuple(map(str, digits.target_names))
    return _arrays(classes, (pixels[train], pixels[test]), (labels[train], labels[test]), size, flip=False)


def _torchvision(name: str, root: Path, download: bool, image_size: int | None) -> _Source:
    from torchvision import datasets

    small = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100, "fashion-mnist": datasets.FashionMNIST}
    fix = "check the connection" if download else "download it with --download"
    if name == "imagenet":
        fix = "put the devkit, train and val archives of ILSVRC2012 there, they cannot be downloaded"
    try:
        if name == "imagenet":
            seen, unseen = (datasets.ImageNet(root, split) for split in ("train", "val"))
        else:
            seen, unseen = (small[name](root, train=train, download=download) for train in (True, False))
    except (RuntimeError, OSError) as error:
        message = f"{name} is not in '{root}': {fix}, or name the folder that has it with --data-root ({error})"
        raise UserError(message) from error
    if name == "imagenet":
        classes = tuple(", ".join(synonyms) for synonyms in seen.classes)
        return _files(classes, root, seen.samples, unseen.samples, image_size or 224)
    arrays = [torch.as_tensor(part.data) for part in (seen, unseen)]
    pixels = [array.permute(0, 3, 1, 2) if array.ndim == 4 else array[:, None] for array in arrays]
    labels = [torch.as_tensor(part.targets, dtype=torch.int64) for part in (seen, unseen)]
    return _arrays(tuple(seen.classes), pixels, labels, image_size or 32, flip=True)


def _arrays(
    classes: tuple[str, ...], pixels: Sequence[Tensor], labels: Sequence[Tensor], size: int, flip: bool
) -> _Source:
    digest = _digest(np.ascontiguousarray(array.numpy()).data for array in (*pixels, *labels))
    return _Source(classes, pixels[0], labels[0], pixels[1], labels[1], size, digest, flip)


def _folder(path: str, image_size: int | None) -> _Source:
    root = Path(path).expanduser()
    layout = "expected a folder with train/CLASS/*.jpg and test/CLASS/*.jpg (or val)"
    if not path or not root.is_dir():
        raise UserError(f"'folder:{path}' {'is a file' if path and root.exists() else 'does not exist'}: {layout}")
    held = next((root / part for part in ("test", "val") if (root / part).is_dir()), root / "test")
    if missing := [part.name for part in (root / "train", held) if not part.is_dir()]:
        raise UserError(f"'{root}' has no {' and no '.join(missing)}: {layout}")
    classes, others = (_classes(part) for part in (root / "train", held))
    if classes != others:
        gaps = {held.name: sorted({*classes} - {*others}), "train": sorted({*others} - {*classes})}
        lacks = [f"{part} lacks {', '.join(names)}" for part, names in gaps.items() if names]
        raise UserError(f"train and {held.name} of '{root}' have different classes: {'; '.join(lacks)}")
    if len(classes) < 2:
        raise UserError(f"'{root / 'train'}' has {len(classes)} classes: expected at least two folders of images")
    train, test = (_listed(part, classes) for part in (root / "train", held))
    return _files(classes, root, train, test, image_size or _usual_size([path for path, _ in train]))


def _listed(part: Path, classes: tuple[str, ...]) -> list[tuple[str, int]]:
    """Each image file under the folders of the classes, with the number of its class."""
    samples: list[tuple[str, int]] = []
    for number, name in enumerate(classes):
        tree = os.walk(part / name, followlinks=True)
        paths = [os.path.join(folder, file) for folder, _, files in tree for file in files if file[0] != "."]
        images = sorted(path for path in paths if path.lower().endswith(SUFFIXES))
        if not images:
            raise UserError(f"no images in '{part / name}': expected files with {' '.join(SUFFIXES)}")
        samples += [(path, number) for path in images]
    return samples


def _classes(part: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in part.iterdir() if entry.is_dir() and not entry.name.startswith(".")))


def _usual_size(paths: list[str]) -> int:
    """The longer side if a hundred images, from all classes, agree on a small size, otherwise 224."""
    sizes = set()
    for path in paths[:: math.ceil(len(paths) / 100)]:
        with opened(path) as image:
            sizes.add(image.size)
    side = max(sizes.pop())
    return side if not sizes and side <= SMALL else 224


def _files(
    classes: tuple[str, ...], root: Path, train: list[tuple[str, int]], test: list[tuple[str, int]], size: int
) -> _Source:
    lines = (f"{Path(path).relative_to(root).as_posix()} {os.path.getsize(path)}\n" for path, _ in (*train, *test))
    (seen, seen_labels), (unseen, unseen_labels) = (zip(*part, strict=True) for part in (train, test))
    digest = _digest(line.encode() for line in lines)
    return _Source(classes, seen, torch.tensor(seen_labels), unseen, torch.tensor(unseen_labels), size, digest)


def _digest(parts: Iterable[bytes | memoryview]) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part)
    return sha.hexdigest()
