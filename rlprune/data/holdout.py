"""Training images that are held back where plans are fine-tuned on the way to the best of them.

What these fine-tunings leave is scored on them, together with the search split. Neither they nor the dense network may
have learned from such images: what a network remembers of those that it has seen would count as if it had recovered.
"""

import torch

from rlprune.data.images import ImageSet

HELD, HELD_PART = 4000, 5
"""Training images, at most, and one in so many of them at most."""


def hold_back(train: ImageSet, seed: int) -> tuple[ImageSet, ImageSet]:
    """The training images that are learned from, and those that are held back; together all of them.

    Args:
        train: training images, without the search split.
        seed: decides which, and the order of both.
    """
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    held = min(HELD, len(train) // HELD_PART)
    return train.subset(order[held:]), train.subset(order[:held])
