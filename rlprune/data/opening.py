"""The container that suits the images."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rlprune.data.cache import cached
from rlprune.data.decoding import decoded, fitted
from rlprune.data.images import SMALL, ImageSet, MemoryImages
from rlprune.data.readers import usual_workers
from rlprune.data.stream import StreamImages
from rlprune.utils.shapes import Shape

AT_ONCE = 256


def open_images(
    source: Sequence[str] | Tensor, labels: Tensor, shape: Shape, *, augmentable: bool, workers: int | None = None
) -> ImageSet:
    """The container that suits the images, not yet normalised.

    Args:
        source: paths of image files, or uint8 of shape (N, 1 or 3, H, W).
        labels: int64 of shape (N,).
        shape: wanted of each. Up to 64 pixels a side the images are stretched to it and kept in memory; larger ones
            are read, resized and cropped when they are needed.
        augmentable: whether images in memory are moved and mirrored for training; larger ones always are.
        workers: processes that read images which are not in memory; by default what suits the cores of the machine.

    Raises:
        UserError: if a file that is read now is no image.
    """
    if isinstance(source, Tensor):
        return MemoryImages(labels, _all(source, shape), augmentable)
    if max(shape[1:]) > SMALL:
        return StreamImages.of(source, labels, shape, usual_workers(len(source)) if workers is None else workers)
    paths = source
    pixels = cached("pixels", paths, (len(paths), *shape), lambda: _all(paths, shape))
    return MemoryImages(labels, pixels, augmentable)


def _all(source: Sequence[str] | Tensor, shape: Shape) -> Tensor:
    """uint8 of shape (N, C, H, W)."""
    pixels = torch.empty(len(source), *shape, dtype=torch.uint8)
    for start in range(0, len(source), AT_ONCE):
        part = source[start : start + AT_ONCE]
        pixels[start : start + AT_ONCE] = fitted(part, shape) if isinstance(part, Tensor) else decoded(part, shape)
    return pixels
