"""The image containers: normalisation, order, augmentation and what both containers have in common."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import MEAN, STD, by_hand, seeded, together, write_photos
from torch import Tensor
from transfers import GENERATOR, META, watched

from rlprune.data.images import ImageSet, MemoryImages
from rlprune.data.stream import StreamImages


def noise(count: int, size: int = 16, seed: int = 0) -> Tensor:
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=seeded(seed))


def small(count: int = 11, size: int = 16, augmentable: bool = True) -> MemoryImages:
    return MemoryImages(torch.arange(count) % 3, noise(count, size), augmentable, mean=MEAN, std=STD)


@pytest.fixture
def photos(tmp_path: Path) -> StreamImages:
    return write_photos(tmp_path)


@pytest.fixture(params=["memory", "files"])
def images(request: pytest.FixtureRequest, photos: StreamImages) -> ImageSet:
    return small() if request.param == "memory" else photos


def test_batches_have_the_promised_form(images: Any) -> None:
    pairs = list(images.batches(4))
    assert [len(x) for x, _ in pairs] == ([4, 4, 3] if len(images) == 11 else [4, 3])
    for x, y in pairs:
        assert x.dtype == torch.float32
        assert y.dtype == torch.int64
        assert x.shape[1] == 3
        assert x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(torch.cat([y for _, y in pairs]), images.labels)


def test_memory_batches_are_normalised_pixels() -> None:
    images = small()
    torch.testing.assert_close(together(images)[0].contiguous(), by_hand(images.pixels))


def test_a_generator_shuffles_and_repeats(images: Any) -> None:
    plain, labels = together(images)
    shuffled, new_labels = together(images, generator=seeded(1))
    again, _ = together(images, generator=seeded(1))
    assert torch.equal(shuffled, again)
    assert not torch.equal(shuffled, plain)
    order = [next(i for i, image in enumerate(plain) if torch.equal(image, moved)) for moved in shuffled]
    assert sorted(order) == list(range(len(images)))
    assert torch.equal(labels[order], new_labels)


def test_augmentation_draws_from_the_generator_alone(images: Any) -> None:
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    first, _ = together(images, augment="standard", generator=seeded(1))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(99)
    second, _ = together(images, augment="standard", generator=seeded(1))
    other, _ = together(images, augment="standard", generator=seeded(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    low, high = by_hand(torch.zeros(3, 1, 1)), by_hand(torch.full((3, 1, 1), 255))
    assert ((first >= low - 1e-5) & (first <= high + 1e-5)).all()
    assert first.shape == together(images)[0].shape


def test_one_generator_gives_another_epoch_each_time(images: Any) -> None:
    generator = seeded(3)
    first, second = (together(images, augment="standard", generator=generator)[0] for _ in range(2))
    assert not torch.equal(first, second)


def test_augmentation_without_a_generator_is_a_bug(images: Any) -> None:
    with pytest.raises(ValueError, match="generator"):
        next(images.batches(4, augment="standard"))


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 10), min_size=1, max_size=20), st.data())
def test_subset_and_take_agree_with_batches(chosen: list[int], data: st.DataObject) -> None:
    images, indices = small(), torch.tensor(chosen)
    x, y = together(images)
    for got_x, got_y in (images.take(indices), together(images.subset(indices))):
        assert torch.equal(got_x, x[indices])
        assert torch.equal(got_y, y[indices])
    nested = torch.tensor(data.draw(st.lists(st.integers(0, len(chosen) - 1), min_size=1, max_size=5)))
    assert torch.equal(images.subset(indices).take(nested)[0], x[indices[nested]])


def test_subsets_share_their_pixels() -> None:
    images = small()
    assert images.subset(torch.tensor([1, 2])).pixels.data_ptr() == images.pixels.data_ptr()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_holds_one_copy_for_all_subsets() -> None:
    images = small()
    part = images.subset(torch.tensor([3, 1]))
    x, y = next(part.batches(2, device="cuda"))
    torch.testing.assert_close(x.cpu(), part.take(torch.arange(2))[0])
    assert y.device.type == "cuda"
    list(images.batches(4, augment="standard", generator=seeded(), device="cuda"))
    assert len(images._copies) == 1


def test_images_that_are_not_augmentable_stay_as_they_are() -> None:
    images = small(augmentable=False)
    plain, augmented = (together(images, augment=augment, generator=seeded(1)) for augment in ("none", "standard"))
    assert torch.equal(plain[0], augmented[0])
    assert torch.equal(plain[1], augmented[1])


def banner(count: int, channels: int = 1) -> Tensor:
    """(N, C, 16, 40) noise."""
    return torch.randint(256, (count, channels, 16, 40), dtype=torch.uint8, generator=seeded())


def test_images_that_are_not_square_move_by_an_eighth_of_each_side() -> None:
    """2 up or down and 5 aside: 5 x 11 windows, each mirrored or not; all are found in 2,000 draws (missing: e^-11)."""
    image = banner(1)
    images = MemoryImages(
        torch.zeros(2000, dtype=torch.int64), image.expand(2000, -1, -1, -1), True, mean=(0.0,), std=(1.0,)
    )
    crops, _ = next(images.batches(2000, augment="standard", generator=seeded()))
    padded = np.pad(image[0, 0].numpy(), ((2, 2), (5, 5)))
    windows = [padded[y : y + 16, x : x + 40] for y in range(5) for x in range(11)]
    expected = {part.tobytes() for window in windows for part in (window.copy(), window[:, ::-1].copy())}
    assert {crop.tobytes() for crop in (crops * 255).round().to(torch.uint8).contiguous().numpy()[:, 0]} == expected
    assert crops.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("augment", ["none", "flip", "standard", "cutout"])
def test_no_step_on_images_in_memory_waits_for_a_copy(augment: str) -> None:
    """The pixels go over once for all, rows and labels once a pass, and mean and deviation before."""
    part = small(40).subset(torch.arange(1, 39))
    for first in (True, False):
        with watched() as since:
            batches = part.batches(8, augment=augment, generator=GENERATOR, device=META)
            next(batches)
            assert len(since()) <= (5 if first else 4)
            assert [x.shape for x, _ in batches] == [(8, 3, 16, 16)] * 3 + [(6, 3, 16, 16)]
            assert since() == []


def test_a_step_on_images_in_files_waits_for_no_copy(photos: StreamImages) -> None:
    """Labels go over once a pass, pixels while the device is at work."""
    with watched() as since:
        batches = photos.batches(2, augment="standard", generator=seeded(), device=META)
        next(batches)
        assert len(since()) <= 5
        for _ in range(3):
            next(batches)
            assert since() == ["copy"]
