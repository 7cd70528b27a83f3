"""A network on as many images at once as there is memory for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rlprune.errors import UserError

WORDS = ("can't allocate memory", "bad_alloc", "could not create a primitive", "could not execute a primitive")
"""Of PyTorch, of C++, and of oneDNN, which says no more than that."""


class Chunks:
    """Runs a network on many images, a chunk at a time; where there is no memory for one, on half as many from then on.

    Every image is run by itself, so that the size of a chunk changes outputs by no more than the order of sums does.

    Args:
        size: images at once.
        tell: told that there are fewer of them.
    """

    def __init__(self, size: int, tell: Callable[[str], None] = lambda text: None) -> None:
        self.size, self.tell = size, tell

    def __call__(self, module: nn.Module, images: Tensor) -> Tensor:
        """Outputs of a network in eval mode, (N, classes) float32.

        Args:
            module: the network.
            images: (N, C, H, W).

        Raises:
            UserError: there is no memory for a single one.
        """
        while True:
            try:
                return torch.cat([module(chunk).float() for chunk in images.split(self.size)])
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                why = str(error).partition("\n")[0]
            # Outside of the handler, which holds on to all that the forward pass had allocated.
            at_once = min(self.size, len(images))
            if at_once == 1:
                fix = "use smaller images, or another --device"
                raise UserError(f"there is no memory for a single image: {fix} ({why})")
            self.size = -(-at_once // 2)
            self.tell(f"no memory for {at_once} images at once: going on with {self.size}")


@contextmanager
def all_at_once(images: Tensor) -> Iterator[None]:
    """Within, images that have to be run at once get an error for people where there is no memory for them."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise UserError(
            f"there is no memory for {len(images)} calibration images, which are needed at once: ask for fewer "
            "with --calibration-images"
        ) from None


def out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether a device or the machine had no memory left."""
    known = isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError))
    return known or any(words in str(error) for words in WORDS)
