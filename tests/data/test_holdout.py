import pytest
import torch

from rlprune.data.holdout import hold_back
from rlprune.data.images import MemoryImages


def images(count: int) -> MemoryImages:
    """Grey images of one pixel, each with its number as its label."""
    return MemoryImages(torch.arange(count), torch.zeros(count, 1, 1, 1, dtype=torch.uint8), True)


@pytest.mark.parametrize(("count", "held"), [(3, 0), (9, 1), (100, 20), (20_000, 4000), (50_000, 4000)])
def test_a_fifth_is_held_back_and_4000_at_most(count: int, held: int) -> None:
    learned, back = (part.labels.tolist() for part in hold_back(images(count), 0))
    assert (len(learned), len(back)) == (count - held, held)
    assert sorted(learned + back) == list(range(count))


def test_the_seed_decides() -> None:
    first, again, other = (hold_back(images(100), seed)[1].labels.tolist() for seed in (0, 0, 1))
    assert first == again != other
