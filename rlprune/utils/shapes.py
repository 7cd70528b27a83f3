"""The shape of an image: how it is written, how a plan keeps it, and an example of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rlprune.errors import UserError

if TYPE_CHECKING:
    import torch

Shape = tuple[int, int, int]
"""Channels, height and width of an image, the last two in pixels."""
RGB = 3
MODES = {1: "L", RGB: "RGB", 4: "RGBA"}
"""Numbers of channels that an image may have, and what Pillow calls such images."""
LARGEST_SIDE = 4096
"""Pixels a side that no classifier takes more of; a single such image is 200 MB."""


def parse_sides(given: object) -> tuple[int, int]:
    """Height and width in pixels, from one number for both or text.

    Args:
        given: 32, "32", or "32x48", which is height x width.

    Raises:
        UserError: it is none of these, or a side is not between 1 and 4096.
    """
    text = str(given) if isinstance(given, (int, str)) and not isinstance(given, bool) else ""
    parts = [part.strip() for part in text.lower().split("x")]
    sides = [int(part) for part in parts if part.isascii() and part.isdigit() and len(part) <= 9]
    if len(sides) != len(parts) or len(sides) > 2 or not all(1 <= side <= LARGEST_SIDE for side in sides):
        raise UserError(
            f"image_size is {given}: expected at least 1 and at most {LARGEST_SIDE} pixels a side, such as 32, or "
            "32x48 for height x width"
        )
    return sides[0], sides[-1]


def sides_of(height: int, width: int) -> int | str:
    """The reverse of `parse_sides`: one number where an image is square, or text such as "32x48"."""
    return height if height == width else f"{height}x{width}"


def shape_of(network: Mapping[str, Any]) -> Shape:
    """The shape of the images that a network is for.

    Args:
        network: what a plan keeps of it: `image_size`, and `channels` where they are not 3.

    Raises:
        UserError: there is no such size.
    """
    return (int(network.get("channels", RGB)), *parse_sides(network["image_size"]))


def as_settings(shape: Shape) -> dict[str, Any]:
    """The reverse of `shape_of`; three channels go without saying."""
    channels, *sides = shape
    return {"image_size": sides_of(*sides)} | ({} if channels == RGB else {"channels": channels})


def described(shape: Shape) -> str:
    """A shape in words, such as "32 pixels a side" or "12 x 20 pixels and 1 channel"."""
    channels, height, width = shape
    sides = f"{height} pixels a side" if height == width else f"{height} x {width} pixels"
    return sides if channels == RGB else f"{sides} and {counted(channels)}"


def counted(channels: int) -> str:
    """A number of channels in words, such as "1 channel"."""
    return f"{channels} channel{'s' * (channels > 1)}"


def example(shape: Shape, batch: int = 1, device: torch.device | str = "cpu") -> torch.Tensor:
    """Images of nothing, (batch, C, H, W) float32."""
    # The settings of the command line are read with this file and without torch.
    import torch

    return torch.zeros(batch, *shape, device=device)
