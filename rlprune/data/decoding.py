"""Image files and arrays turned into pixels."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from rlprune.errors import UserError
from rlprune.utils.shapes import MODES, RGB, Shape

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow knows more of them, and starts another program for PostScript, whatever the file is called."""
BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


@contextmanager
def opened(path: str) -> Iterator[Image.Image]:
    """An image file, of which Pillow has read only the header.

    Raises:
        UserError: if the file is no image, has more pixels than `PIL.Image.MAX_IMAGE_PIXELS` (89 million), or turns
            out to be cut short while it is open.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns first and refuses twice as many.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path, formats=FORMATS)
        with image:
            yield image
    except (OSError, SyntaxError, ValueError, EOFError, *BOMBS) as error:
        raise UserError(f"image '{path}' cannot be read: {error}; replace or remove the file") from error


def read_image(path: str, channels: int = RGB) -> Image.Image:
    """One image file with 8 bits of grey (one channel), of red, green and blue (three), or of alpha, too (four).

    Raises:
        UserError: it cannot be read as that.
    """
    mode = MODES[channels]
    with opened(path) as image:
        if image.mode[0] in "IF":
            raise UserError(f"image '{path}' has mode {image.mode}: convert it to 8 bits a channel")
        image.load()
        if image.mode == mode:
            return image
        # Pillow warns of transparent palettes turned into RGB in one step.
        return (image.convert("RGBA") if image.mode == "P" else image).convert(mode)


def decoded(paths: Sequence[str], shape: Shape) -> Tensor:
    """uint8 of shape (N, C, H, W): the images pasted one below the other, as one conversion is faster than N."""
    channels, height, width = shape
    strip = Image.new(MODES[channels], (width, height * len(paths)))
    for place, path in enumerate(paths):
        image = read_image(path, channels)
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        strip.paste(image, (0, height * place))
    return torch.from_numpy(np.array(strip)).view(-1, height, width, channels).permute(0, 3, 1, 2)


def fitted(images: Tensor, shape: Shape) -> Tensor:
    """uint8 of shape (N, 1 or 3, H, W) as uint8 of another shape, bilinear, with colours as Pillow converts them."""
    channels, *sides = shape
    if channels == 1 and images.shape[1] == RGB:
        # 0.299 red, 0.587 green and 0.114 blue of ITU-R 601, in 65,536ths.
        weights = torch.tensor([19595, 38470, 7471]).view(RGB, 1, 1)
        images = ((images.int() * weights).sum(1, keepdim=True) + 0x8000 >> 16).to(torch.uint8)
    if list(images.shape[2:]) != sides:
        smooth = interpolate(images.float(), sides, mode="bilinear", antialias=True)
        images = smooth.round_().clamp_(0, 255).to(torch.uint8)
    if channels == 1:
        return images
    colours = images.expand(-1, RGB, -1, -1)
    opaque = torch.full_like(colours[:, :1], 255)
    return colours if channels == RGB else torch.cat([colours, opaque], 1)
