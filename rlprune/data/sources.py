"""Where labelled images come from: sets known by name and folders, before any image file is decoded."""

import hashlib
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rlprune.data.decoding import opened
from rlprune.data.images import SMALL
from rlprune.errors import UserError, unknown
from rlprune.utils.files import cache_folder
from rlprune.utils.shapes import RGB, Shape, parse_sides, sides_of

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
Sides = tuple[int, int]
"""Height and width, pixels."""
# Epochs to train a dense network, to fine-tune a pruned one, and to do that as long as the literature does; for each
# set known by name.
EPOCHS = {
    "digits": (4, 3, 30),
    "cifar10": (12, 6, 120),
    "cifar100": (12, 6, 120),
    "fashion-mnist": (12, 6, 120),
    "imagenet": (90, 10, 100),
}


@dataclass(frozen=True)
class Source:
    """What a name stands for.

    Args:
        classes: the names of the classes, in the order of the labels.
        train: paths of the training images, or uint8 of shape (N, 1 or 3, H, W).
        train_labels: int64 of shape (N,).
        test: alike.
        test_labels: alike.
        shape: to bring the images to.
        digest: changes with the images and their labels.
        augmentable: whether images moved or mirrored at random are of use for training.
    """

    classes: tuple[str, ...]
    train: Sequence[str] | Tensor
    train_labels: Tensor
    test: Sequence[str] | Tensor
    test_labels: Tensor
    shape: Shape
    digest: str
    augmentable: bool = True

    @property
    def image_size(self) -> int | str:
        """Pixels a side, or text such as "32x48" where height and width differ."""
        return sides_of(*self.shape[1:])


def find_source(
    name: str, root: Path | None, download: bool, image_size: int | str | None, channels: int = RGB
) -> Source:
    """Finds the images that a name stands for.

    Args:
        name: as `rlprune.data.dataset.load_data` takes it.
        root: the folder of the sets that torchvision knows; by default in the user's cache.
        download: whether such a set may be downloaded to it.
        image_size: pixels a side, or text such as "32x48" for height x width; by default what suits the images.
        channels: 1, 3 or 4.

    Raises:
        UserError: if there are no such images or they cannot be used.
    """
    sides = None if image_size is None else parse_sides(image_size)
    if name.startswith("folder:"):
        return _folder(name.removeprefix("folder:"), sides, channels)
    if name not in EPOCHS:
        if os.path.isdir(name):
            raise UserError(f"data '{name}' is a folder: write 'folder:{name}'")
        raise unknown("data", name, [*EPOCHS, "folder:PATH"])
    if name != "imagenet" and max(sides or (0,)) > SMALL:
        raise UserError(f"image_size is {image_size}: {name} is kept in memory with at most {SMALL} pixels a side")
    if name == "digits":
        return _digits((channels, *(sides or (32, 32))))
    return _torchvision(name, root or cache_folder() / "data", download, sides, channels)


def _digits(shape: Shape) -> Source:
    """1,797 scans of handwritten digits with 8 x 8 pixels of 17 grey levels (Alpaydin and Kaynak 1998, UCI)."""
    # scikit-learn carries them; to import it for that takes as long as all the rest of a replay.
    package = find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    table = np.loadtxt(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    pixels = torch.from_numpy((table[:, :-1] * 255 / 16).round().astype(np.uint8)).unflatten(1, (1, 8, 8))
    labels = torch.from_numpy(table[:, -1].astype(np.int64))
    test, train = stratified(labels, math.ceil(len(labels) / 5), torch.Generator().manual_seed(0))
    classes = tuple(map(str, range(10)))
    source = _arrays(classes, (pixels[train], pixels[test]), (labels[train], labels[test]), shape)
    return replace(source, augmentable=False)  # all are centred and of one size, moved ones never occur


def _torchvision(name: str, root: Path, download: bool, sides: Sides | None, channels: int) -> Source:
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
    # Files that are no such data set make the readers fail in any way at all.
    except Exception as error:
        message = f"{name} is not in '{root}': {fix}, or name the folder that has it with --data-root ({error})"
        raise UserError(message) from error
    if name == "imagenet":
        classes = tuple(", ".join(synonyms) for synonyms in seen.classes)
        return _files(classes, root, seen.samples, unseen.samples, (channels, *(sides or (224, 224))))
    arrays = [torch.as_tensor(part.data) for part in (seen, unseen)]
    pixels = [array.permute(0, 3, 1, 2) if array.ndim == 4 else array[:, None] for array in arrays]
    labels = [torch.as_tensor(part.targets, dtype=torch.int64) for part in (seen, unseen)]
    return _arrays(tuple(seen.classes), pixels, labels, (channels, *(sides or (32, 32))))


def _arrays(classes: tuple[str, ...], pixels: Sequence[Tensor], labels: Sequence[Tensor], shape: Shape) -> Source:
    digest = _digest(np.ascontiguousarray(array.numpy()).data for array in (*pixels, *labels))
    return Source(classes, pixels[0], labels[0], pixels[1], labels[1], shape, digest)


def _folder(path: str, sides: Sides | None, channels: int) -> Source:
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
    sides = sides or _usual_sides([path for path, _ in train])
    return _files(classes, root, train, test, (channels, *sides))


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


def _usual_sides(paths: list[str]) -> Sides:
    """A square of the longer side if a hundred images, from all classes, agree on a small size, otherwise 224."""
    sizes = set()
    for path in paths[:: math.ceil(len(paths) / 100)]:
        with opened(path) as image:
            sizes.add(image.size)
    side = max(sizes.pop())
    side = side if not sizes and side <= SMALL else 224
    return side, side


def _files(
    classes: tuple[str, ...], root: Path, train: list[tuple[str, int]], test: list[tuple[str, int]], shape: Shape
) -> Source:
    lines = (f"{_below(root, path)} {os.path.getsize(path)}\n" for path, _ in (*train, *test))
    (seen, seen_labels), (unseen, unseen_labels) = (zip(*part, strict=True) for part in (train, test))
    digest = _digest(line.encode() for line in lines)
    return Source(classes, seen, torch.tensor(seen_labels), unseen, torch.tensor(unseen_labels), shape, digest)


def _below(root: Path, path: str) -> str:
    """A path as seen from a folder above it."""
    # Only where the paths are spelled differently, for a `Path` of each of a million files takes a quarter of a minute.
    start = os.path.join(root, "")
    return (
        path[len(start) :].replace(os.sep, "/") if path.startswith(start) else Path(path).relative_to(root).as_posix()
    )


def stratified(labels: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws images at random, with as many of each class as Webster's method of 1832 apportions.

    Args:
        labels: int64 of shape (N,).
        count: how many to draw, at most N.
        generator: the source of all randomness.

    Returns:
        The indices of the images drawn, int64 of shape (count,), and those of the rest, both sorted.
    """
    order = torch.randperm(len(labels), generator=generator)
    by_class = order[labels[order].argsort(stable=True)]
    counts, known = labels.bincount(), labels[by_class]
    within = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[known]
    turn = torch.empty(len(labels), dtype=torch.float64)
    turn[by_class] = (within.double() + 0.5) / counts[known]
    queue = order[turn[order].argsort(stable=True)]
    return queue[:count].sort().values, queue[count:].sort().values


def _digest(parts: Iterable[bytes | memoryview]) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part)
    return sha.hexdigest()
