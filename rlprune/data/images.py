"""Labelled images that come in normalised batches: what all containers share, and the one that keeps them in memory."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rlprune.tasks.base import AS_THEY_ARE
from rlprune.tasks.classification import CLASSIFICATION

SMALL = 64  # pixels a side up to which a whole set is kept in memory: 12 KiB an image
Colour = tuple[float, ...]
"""A number for each channel of an image."""


@dataclass(eq=False)
class ImageSet(ABC):
    """Images of one shape and their labels; ``mean`` and ``std`` (0..1 scale, one a channel or one) normalise them."""

    labels: Tensor
    mean: Colour = field(default=(0.0,), kw_only=True)
    std: Colour = field(default=(1.0,), kw_only=True)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def changeable(self) -> bool:
        """Whether images changed at random are of use for training."""
        return True

    @abstractmethod
    def subset(self, indices: Tensor) -> "ImageSet":
        """The images at ``indices`` (int64, CPU), in that order and without a copy of their pixels."""

    @abstractmethod
    def _pixels(
        self, order: Tensor, batch_size: int, augment: str, generator: torch.Generator | None, device: torch.device
    ) -> Iterator[Tensor]:
        """The images at ``order``, so many at a time, uint8 of shape (B, C, H, W), on any device."""

    def batches(
        self,
        batch_size: int,
        *,
        augment: str = AS_THEY_ARE,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once, in batches; the last one may be smaller.

        A step waits for no copy from the host: labels and order go to the device once a pass. Of images in memory
        nothing else does where the generator is the device's own, of those in files the pixels do, while it computes.

        Args:
            batch_size: images a batch.
            augment: how to change the images at random, one of `rlprune.tasks.base.AUGMENTATIONS`.
            generator: the source of all randomness; with it the images are shuffled, without it they keep their order.
            device: where the batches go.

        Returns:
            Pairs of images, float32 (B, C, H, W) in channels-last memory format, and labels, int64 (B,).
        """
        if augment != AS_THEY_ARE and generator is None:
            raise ValueError("augmentation draws from the generator: give one")
        device, count = torch.device(device), len(self)
        order = torch.arange(count)
        if generator is not None:
            order = torch.randperm(count, generator=generator, device=generator.device)
        mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (self.mean, self.std))
        scale, shift = 1 / (255 * std), mean / std
        labels = self.labels.to(device)[order.to(device)].split(batch_size)
        for pixels, known in zip(self._pixels(order, batch_size, augment, generator, device), labels, strict=True):
            images = pixels.to(device, non_blocking=True).to(torch.float32, memory_format=torch.channels_last)
            yield images.mul_(scale).sub_(shift), known

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The images and labels at ``indices`` (int64, at least one) as one batch on the CPU, not augmented."""
        return next(self.subset(indices).batches(len(indices)))


@dataclass(eq=False)
class MemoryImages(ImageSet):
    """Images kept in memory as one uint8 tensor that all subsets share; a device that asks for some gets all, once.

    Args:
        labels: int64 of shape (N,).
        pixels: uint8 of shape (M, C, H, W).
        augmentable: whether to move and mirror images for training; centred scans of digits only get worse.
        rows: which of the M images these are, int64 of shape (N,); all of them by default.
    """

    pixels: Tensor
    augmentable: bool
    rows: Tensor | None = None
    _copies: dict[torch.device, Tensor] = field(default_factory=dict, repr=False)

    @property
    def changeable(self) -> bool:
        """See `ImageSet.changeable`."""
        return self.augmentable

    def subset(self, indices: Tensor) -> "MemoryImages":
        """The images at ``indices``; see `ImageSet.subset`."""
        rows = indices if self.rows is None else self.rows[indices]
        return replace(self, labels=self.labels[indices], rows=rows)

    def _resident(self, device: torch.device) -> Tensor:
        if device.type == "cpu":
            return self.pixels
        if device not in self._copies:
            self._copies[device] = self.pixels.to(device)
        return self._copies[device]

    def _pixels(
        self, order: Tensor, batch_size: int, augment: str, generator: torch.Generator | None, device: torch.device
    ) -> Iterator[Tensor]:
        source, order = self._resident(device), order.to(device)
        rows = order if self.rows is None else self.rows.to(device)[order]
        for chosen in rows.split(batch_size):
            images = source[chosen]
            if generator is not None and self.augmentable and augment != AS_THEY_ARE:
                images = CLASSIFICATION.augment(images, generator, augment)
            yield images
