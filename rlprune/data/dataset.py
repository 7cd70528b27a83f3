"""Labelled images by name: read, split into training, calibration, search and test images, and normalised."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from rlprune.data.colours import measured_colours
from rlprune.data.images import Colour, ImageSet
from rlprune.data.opening import open_images
from rlprune.data.sources import EPOCHS, Source, find_source, stratified
from rlprune.errors import UserError
from rlprune.utils.shapes import MODES, RGB, Shape, sides_of

EXPECTED = {
    1: ("one number", "grey"),
    RGB: ("three numbers", "red, green and blue"),
    4: ("four numbers", "red, green, blue and transparency"),
}
"""What normalises images, by their number of channels."""

MANY_IMAGES, LARGE_IMAGES = 100_000, 128
"""Training images, or pixels of the longer side, from which on images are like those of ImageNet."""
HELD_A_CLASS = 5
"""Search images a class, as far as they are a fifth of all: fewer do not tell good plans from better ones."""


@dataclass(frozen=True)
class Dataset:
    """Images for one classification task.

    Args:
        name: as the user wrote it.
        classes: the names of the classes, in the order of the labels.
        shape: (C, H, W) of an image.
        mean: of each channel on the scale 0..1; the images have it subtracted.
        std: of each channel; the images are divided by it.
        train: training images, without the search images.
        calibration: some of ``train``, for the statistics of batch normalisation.
        search: held out of the training images, for the agent's reward.
        test: for the result reported at the end.
        train_epochs: how long to train a dense network by default.
        finetune_epochs: how long to fine-tune a pruned network by default.
        long_epochs: how long the literature does.
        fingerprint: 16 hexadecimal digits that change with anything that determines the images.
    """

    name: str
    classes: tuple[str, ...]
    shape: Shape
    mean: Colour
    std: Colour
    train: ImageSet
    calibration: ImageSet
    search: ImageSet
    test: ImageSet
    train_epochs: int
    finetune_epochs: int
    long_epochs: int
    fingerprint: str

    @property
    def image_size(self) -> int | str:
        """Pixels a side, or text such as "32x48" where height and width differ."""
        return sides_of(*self.shape[1:])

    @property
    def weight_decay(self) -> float:
        """The L2 coefficient that networks for such images are usually trained with."""
        like_imagenet = len(self.train) >= MANY_IMAGES or max(self.shape[1:]) >= LARGE_IMAGES
        return 1e-4 if like_imagenet else 5e-4


def load_data(
    name: str = "digits",
    *,
    root: str | Path | None = None,
    download: bool = False,
    image_size: int | str | None = None,
    channels: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    calibration_images: int | None = None,
    search_images: int | None = None,
    seed: int = 0,
    workers: int | None = None,
) -> Dataset:
    """Loads labelled images and splits them the same way for the same seed.

    Args:
        name: ``digits``, ``cifar10``, ``cifar100``, ``fashion-mnist``, ``imagenet`` or ``folder:PATH`` with
            ``PATH/train/CLASS/*.jpg`` and ``PATH/test`` or ``PATH/val`` alike (``test`` if there are both).
        root: the folder of the sets that torchvision knows; by default in the user's cache.
        download: whether such a set may be downloaded to it.
        image_size: pixels a side, or text such as "32x48" for height x width; by default the size of the set's own
            images, or 224 for photographs.
        channels: 1 for grey, 3 for red, green and blue (the default), 4 with transparency.
        mean: of each channel on the scale 0..1; by default that of the training images.
        std: alike.
        calibration_images: by default 2.5 % of the training images, at most 200.
        search_images: by default 5 % of the training images and at most 500; but one a class on average, and five as
            far as that is a fifth of the training images.
        seed: decides which images are held out.
        workers: processes that read images above 64 pixels; smaller ones are kept in memory. By default one for every
            second core, at most 8, and none for less than 2,000 images.

    Raises:
        UserError: if the images or the options cannot be used.
    """
    channels = RGB if channels is None else channels
    if channels not in MODES:
        raise UserError(f"channels is {channels}: expected 1 for grey, 3 for colour or 4 with transparency")
    normalising = {"mean": mean, "std": std}
    colours = {key: _colour(key, given, channels) for key, given in normalising.items() if given is not None}
    counts = {"calibration_images": calibration_images, "search_images": search_images}
    for option, count in counts.items():
        if count is not None and count < 1:
            raise UserError(f"{option} is {count}: expected at least 1")
    source = find_source(name, Path(root).expanduser() if root else None, download, image_size, channels)
    kept, calibration, search = _split(source, calibration_images, search_images, seed)

    opened = partial(open_images, shape=source.shape, augmentable=source.augmentable, workers=workers)
    train, test = opened(source.train, source.train_labels), opened(source.test, source.test_labels)
    if len(colours) < 2:
        colours = measured_colours(train) | colours
    train, test = (replace(images, mean=colours["mean"], std=colours["std"]) for images in (train, test))

    kind = name.partition(":")[0]
    identity = [kind, source.digest, source.image_size, colours["mean"], colours["std"]]
    identity += [len(kept), len(calibration), len(search), len(test), seed]
    train_epochs, finetune_epochs, long_epochs = EPOCHS.get(kind, (30, 10, 100))
    return Dataset(
        name=name,
        classes=source.classes,
        shape=source.shape,
        **colours,
        train=train.subset(kept),
        calibration=train.subset(calibration),
        search=train.subset(search),
        test=test,
        train_epochs=train_epochs,
        finetune_epochs=finetune_epochs,
        long_epochs=long_epochs,
        fingerprint=hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16],
    )


def _colour(key: str, given: Sequence[float], channels: int) -> Colour:
    numbers = tuple(float(value) for value in given)
    if len(numbers) != channels or not all(map(math.isfinite, numbers)) or (key == "std" and min(numbers) <= 0):
        count, what = EXPECTED[channels]
        above = " above 0" if key == "std" else ""
        raise UserError(f"{key} is {', '.join(map(str, given))}: expected {count}{above}, for {what}")
    return numbers


def _split(source: Source, calibration: int | None, search: int | None, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of the images to train on, of those of them to calibrate with, and of those held out to search with."""
    labels, generator = source.train_labels, torch.Generator().manual_seed(seed)
    classes = len(source.classes)
    usual = min(500, max(classes, len(labels) // 20))
    search = search or max(usual, min(HELD_A_CLASS * classes, len(labels) // 5))
    calibration = calibration or min(200, max(2, len(labels) // 40))
    if search + calibration > len(labels):
        raise UserError(
            f"{search} search images and {calibration} calibration images are more than the {len(labels)} training "
            "images: ask for fewer or add images"
        )
    if len(labels) - search < 2:
        raise UserError(
            f"{search} search images leave {len(labels) - search} of {len(labels)} training images to train on, which "
            "takes 2 or more: ask for fewer or add images"
        )
    held_out, kept = stratified(labels, search, generator)
    calibrating, _ = stratified(labels[kept], calibration, generator)
    return kept, kept[calibrating], held_out
