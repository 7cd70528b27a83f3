"""What makes a network a classifier, against formulas and slices."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rlprune.errors import UserError
from rlprune.tasks.classification import CLASSIFICATION, calibrated, crop_and_mirror, cut_out


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int, size: int = 16, seed: int = 0) -> Tensor:
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=seeded(seed))


@pytest.mark.parametrize(
    "make",
    [
        lambda: (torch.randn(50, 4), torch.arange(50) % 4),
        lambda: (5 * torch.eye(4)[torch.arange(50) % 4] + torch.randn(50, 4), torch.arange(50) % 4),
        lambda: (40 * torch.eye(4)[torch.arange(50) % 4] + 30 * torch.randn(50, 4), torch.arange(50) % 4),
    ],
)
def test_loss_is_the_lowest_over_all_temperatures(make: Callable[[], tuple[Tensor, Tensor]]) -> None:
    logits, labels = make()
    scales = torch.linspace(-5, 3, 4001, dtype=torch.float64).exp()
    lowest = min(F.cross_entropy(logits.double() * scale, labels).item() for scale in scales)
    found = calibrated(logits, labels)
    assert found.loss == pytest.approx(lowest, rel=1e-5, abs=1e-8)
    assert found.accuracy == pytest.approx((logits.argmax(1) == labels).float().mean().item())


def test_temperature_by_hand() -> None:
    """Three of four right by a margin of m is best at a margin of ln 3, where the loss is the entropy."""
    logits = torch.tensor([[2.0, 0.0]] * 4)
    found = calibrated(logits, torch.tensor([0, 0, 0, 1]))
    assert found.accuracy == 0.75
    assert found.loss == pytest.approx(-0.75 * np.log(0.75) - 0.25 * np.log(0.25), rel=1e-6)
    # Not in need of a common offset, nor of a scale.
    assert calibrated(100 + 7 * logits, torch.tensor([0, 0, 0, 1])).loss == pytest.approx(found.loss, rel=1e-5)


def windows(image: np.ndarray, margin: int) -> set[bytes]:
    """Every picture that padding by ``margin``, cropping and mirroring can make, cut out by slices."""
    size, padded = image.shape[1], np.pad(image, [(0, 0), (margin, margin), (margin, margin)])
    steps = range(2 * margin + 1)
    crops = [padded[:, top : top + size, left : left + size] for top in steps for left in steps]
    return {crop.tobytes() for crop in crops + [crop[:, :, ::-1] for crop in crops]}


def test_crops_are_windows_and_reach_all_of_them() -> None:
    """At 16 pixels: 5 x 5 windows, each mirrored or not; a seed finds each in 1,500 draws (missing one: e^-30)."""
    image = noise(1, 16)
    crops = crop_and_mirror(image.expand(1500, -1, -1, -1), seeded())
    found = {crop.tobytes() for crop in crops.contiguous().numpy()}
    assert found == windows(image[0].numpy(), 2)


def test_images_of_a_batch_move_on_their_own() -> None:
    crops = crop_and_mirror(noise(1, 16).expand(64, -1, -1, -1), seeded())
    assert len({crop.tobytes() for crop in crops.contiguous().numpy()}) > 20


def test_images_below_eight_pixels_are_mirrored_alone() -> None:
    pixels = noise(20, 7)
    kept, mirrored = (
        [torch.equal(a, b) for a, b in zip(crop_and_mirror(pixels, seeded()), expected, strict=True)]
        for expected in (pixels, pixels.flip(3))
    )
    assert [*map(sum, zip(kept, mirrored, strict=True))] == [1] * 20
    assert 0 < sum(mirrored) < 20


def test_distillation_ends_where_outputs_differ_by_a_constant() -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    assert CLASSIFICATION.distillation(logits, logits + 3).item() == pytest.approx(0, abs=1e-6)
    # KL((3/4, 1/4) || (1/2, 1/2)) = log 2 - H(1/4)
    lesson = torch.tensor([[4 * math.log(3.0), 0.0]])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert CLASSIFICATION.distillation(torch.zeros(1, 2), lesson).item() == pytest.approx(
        16 * (math.log(2) - entropy), rel=1e-5
    )


def test_losses_and_answers_by_hand() -> None:
    logits, labels = torch.tensor([[0.0, math.log(3)], [math.log(3), 0.0]]), torch.tensor([1, 1])
    each = CLASSIFICATION.loss(logits, labels, each=True)
    assert each.tolist() == pytest.approx([math.log(4 / 3), math.log(4)])
    assert CLASSIFICATION.loss(logits, labels).item() == pytest.approx(each.mean().item())
    # Half of the target is spread over both classes.
    smooth = CLASSIFICATION.loss(logits[:1], labels[:1], smoothing=0.5).item()
    assert smooth == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * math.log(4))
    assert CLASSIFICATION.right(logits, labels).tolist() == [True, False]
    assert CLASSIFICATION.chance_loss(4) == pytest.approx(CLASSIFICATION.loss(torch.zeros(1, 4), labels[:1]).item())


def test_auxiliary_outputs_come_after_the_logits() -> None:
    main, other = torch.zeros(2, 3), torch.ones(2, 3)
    for result in ((main, other), [main, None, other], {"logits": main, "aux": other}):
        assert [found is one for found, one in zip(CLASSIFICATION.outputs(result), (main, other), strict=True)]
    assert CLASSIFICATION.outputs(main)[0] is main


@pytest.mark.parametrize("output", [torch.zeros(1, 3, 3), (torch.zeros(1, 3),), None])
def test_what_is_no_logits_is_refused(output: object) -> None:
    CLASSIFICATION.check(torch.zeros(1, 3))
    with pytest.raises(UserError, match=r"must return one tensor \(images, classes\) in eval mode"):
        CLASSIFICATION.check(output)


def test_images_that_are_not_square_move_within_their_sides() -> None:
    """24 x 16 pixels: 3 up or down, 2 sideways, mirrored or not; all of them are met."""
    image = torch.randint(256, (1, 4, 24, 16), dtype=torch.uint8, generator=seeded())
    padded = np.pad(image[0].numpy(), [(0, 0), (3, 3), (2, 2)])
    crops = [padded[:, top : top + 24, left : left + 16] for top in range(7) for left in range(5)]
    expected = {crop.tobytes() for crop in crops + [crop[:, :, ::-1] for crop in crops]}
    moved = crop_and_mirror(image.expand(2000, -1, -1, -1), seeded())
    assert {crop.tobytes() for crop in moved.contiguous().numpy()} == expected


def test_mirrored_images_are_mirrored_and_nothing_else() -> None:
    pixels = noise(40, 7)
    found = CLASSIFICATION.augment(pixels, seeded(), "flip")
    kept, mirrored = (
        [torch.equal(a, b) for a, b in zip(found, expected, strict=True)] for expected in (pixels, pixels.flip(3))
    )
    assert [*map(sum, zip(kept, mirrored, strict=True))] == [1] * 40
    assert 10 < sum(mirrored) < 30


def test_what_is_cut_out_is_half_as_high_and_wide_around_any_pixel() -> None:
    """9 x 6 pixels: 4 x 3 are black, from 2 above and 1 left of a centre on; all 54 are met (missing: 54 e^-37)."""
    images = torch.full((2000, 2, 9, 6), 7, dtype=torch.uint8)
    expected = set()
    for top in range(-2, 7):
        for left in range(-1, 5):
            one = np.full((2, 9, 6), 7, dtype=np.uint8)
            one[:, max(top, 0) : top + 4, max(left, 0) : left + 3] = 0
            expected.add(one.tobytes())
    assert {image.tobytes() for image in cut_out(images, seeded()).numpy()} == expected


def test_cutting_out_comes_after_moving() -> None:
    pixels = noise(30)
    whole, cut = (CLASSIFICATION.augment(pixels, seeded(), how) for how in ("standard", "cutout"))
    assert torch.equal(whole, crop_and_mirror(pixels, seeded()))
    lost = (whole != cut).any(1)
    assert (lost.sum((1, 2)) <= 64).all()
    assert (cut.permute(0, 2, 3, 1)[lost] == 0).all()
    assert lost.any(2).any(1).sum() > 25
