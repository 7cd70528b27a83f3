"""Sizes as they are written and as plans keep them."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlprune.errors import UserError
from rlprune.utils.shapes import as_settings, described, example, parse_sides, shape_of, sides_of


@pytest.mark.parametrize(
    ("text", "sides"),
    [(32, (32, 32)), ("32", (32, 32)), ("32x48", (32, 48)), (" 12 X 20 ", (12, 20)), ("1x4096", (1, 4096))],
)
def test_sizes_are_read(text: Any, sides: tuple[int, int]) -> None:
    assert parse_sides(text) == sides


@pytest.mark.parametrize(
    "text",
    ["32x", "x32", "x", "", "0x5", "5x0", "5000x5", "5x5000", "3x4x5", "-3", "-3x4", "1.5", "large", "1e3", "٣", "²",
     "9" * 5000, 0, -3, 4097, 10**30, True, False, 1.5, float("nan"), None, [32, 48], (32, 48)],
)  # fmt: skip
def test_nonsense_is_refused(text: Any) -> None:
    with pytest.raises(UserError, match=r"(?s)image_size is .*: expected at least 1 and at most 4096 .*height x width"):
        parse_sides(text)


@given(st.tuples(st.sampled_from([1, 3, 4]), st.integers(1, 4096), st.integers(1, 4096)))
def test_what_a_plan_keeps_is_read_back(shape: tuple[int, int, int]) -> None:
    kept = as_settings(shape)
    assert shape_of(kept) == shape
    assert parse_sides(sides_of(*shape[1:])) == shape[1:]
    assert ("channels" in kept) == (shape[0] != 3)
    assert isinstance(kept["image_size"], int) == (shape[1] == shape[2])


def test_square_images_in_colour_are_kept_as_ever() -> None:
    assert as_settings((3, 32, 32)) == {"image_size": 32}
    assert as_settings((1, 12, 20)) == {"image_size": "12x20", "channels": 1}


def test_words() -> None:
    assert described((3, 32, 32)) == "32 pixels a side"
    assert described((1, 12, 20)) == "12 x 20 pixels and 1 channel"
    assert described((4, 12, 12)) == "12 pixels a side and 4 channels"


def test_an_example() -> None:
    images = example((1, 12, 20), 2)
    assert (images.shape, images.dtype, int(images.count_nonzero())) == ((2, 1, 12, 20), torch.float32, 0)
