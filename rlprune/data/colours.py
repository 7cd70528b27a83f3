"""By what images are normalised: mean and standard deviation of each channel."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from rlprune.data.cache import cached
from rlprune.data.images import Colour, ImageSet, MemoryImages
from rlprune.data.stream import StreamImages
from rlprune.errors import UserError
from rlprune.utils.shapes import RGB

FILES = 2000
"""That are read, at most."""


def measured_colours(images: ImageSet) -> dict[str, Colour]:
    """Mean and standard deviation on the scale 0..1, over all images in memory, or over up to 2,000 read from files.

    Raises:
        UserError: a channel has a standard deviation of zero.
    """
    counts = _counts(images).double()
    # As images come when they are not normalised: the numbers in fingerprints were measured on these.
    levels = (torch.arange(256) * (1 / torch.tensor(255.0))).double()
    mean, squares = (counts @ powers / counts[0].sum() for powers in (levels, levels**2))
    # Six digits, so that the order of a sum on another machine does not change the fingerprint.
    std = (squares - mean**2).clamp(min=0).sqrt().round(decimals=6)
    if std.min() == 0:
        # Most images that could be transparent are not.
        opaque = len(std) > RGB and std[:RGB].min() > 0
        what, fix = ("the transparency", "use three channels, or ") if opaque else ("a colour", "")
        raise UserError(f"{what} has the same value in all training images: {fix}give the mean and std to use")
    return {"mean": tuple(mean.round(decimals=6).tolist()), "std": tuple(std.tolist())}


def _counts(images: ImageSet) -> Tensor:
    """(channels, 256) how often each level of brightness is met, int64."""
    if isinstance(images, MemoryImages):
        return _sum(images.pixels.split(1000))
    assert isinstance(images, StreamImages)
    some = images.subset(torch.linspace(0, len(images) - 1, FILES).long()) if len(images) > FILES else images
    parts = ((batch * 255).round().byte() for batch, _ in some.batches(250))
    return cached(f"levels of {some.shape}", some.paths(), (some.shape[0], 256), lambda: _sum(parts))


def _sum(parts: Iterable[Tensor]) -> Tensor:
    """The same of the parts of images, uint8 (B, C, H, W)."""
    # NumPy counts bytes ten times as fast as torch.
    counts = [[np.bincount(channel.reshape(-1).numpy(), minlength=256) for channel in part.unbind(1)] for part in parts]
    return torch.from_numpy(np.sum(counts, axis=0))
