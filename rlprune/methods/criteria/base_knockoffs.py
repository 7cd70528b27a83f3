"""Images that look like those of a data set and say nothing of their classes."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from rlprune.data.decoding import decoded
from rlprune.data.sources import SUFFIXES
from rlprune.errors import UserError

Draw = Callable[[int], Tensor]
"""How many -> so many knockoffs, (number, C, H, W)."""


def second_order(images: Tensor, drawn: torch.Generator) -> Draw:
    """Second-order knockoffs of the principal components of images (Candès et al., 2018, arXiv 1610.02351).

    Principal components are uncorrelated. Of such variables, with variances Λ, the knockoffs that are as little
    correlated with the originals as can be have the diagonal s = Λ: z̃ given z is normal with mean z - s Λ⁻¹ z = 0 and
    variance 2 s - s Λ⁻¹ s = Λ, whatever z is. All components of N images with normal weights of these variances are
    normal combinations of the images around their mean, so that nothing has to be decomposed.

    Args:
        images: (N, C, H, W), at least two.
        drawn: the source of all randomness, on the CPU.
    """
    mean = images.mean(0)
    around = (images - mean).flatten(1) / max(len(images) - 1, 1) ** 0.5

    def draw(number: int) -> Tensor:
        weights = torch.randn(number, len(images), generator=drawn).to(around)
        return mean + (weights @ around).unflatten(1, mean.shape)

    return draw


def of_folder(folder: str, images: Tensor, drawn: torch.Generator) -> Draw:
    """Knockoffs that the user has made, brought to the mean and deviation that every colour has in images.

    Args:
        folder: of image files, of which no more are read than there are images.
        images: (N, C, H, W), normalised.
        drawn: the source of all randomness, on the CPU.

    Raises:
        UserError: there are no images, or one cannot be read.
    """
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise UserError(
            f"criterion scop:knockoffs={folder}: no images are there, expected a folder of generated ones; plain scop "
            "makes its own"
        )
    pixels = decoded([str(path) for path in paths[: len(images)]], tuple(images.shape[1:])).to(images)  # type: ignore[arg-type]
    found = (pixels - _mean(pixels)) / _deviation(pixels).clamp(min=1e-6) * _deviation(images) + _mean(images)

    def draw(number: int) -> Tensor:
        return found[torch.randint(len(found), (number,), generator=drawn).to(found.device)]

    return draw


def _mean(images: Tensor) -> Tensor:
    return images.mean((0, 2, 3), keepdim=True)


def _deviation(images: Tensor) -> Tensor:
    return images.std((0, 2, 3), keepdim=True)
