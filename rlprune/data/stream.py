"""Labelled images that are read from their files when they are needed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rlprune.data.images import ImageSet
from rlprune.data.paths import PathTable
from rlprune.data.readers import Files, Item, Readers
from rlprune.tasks.base import AS_THEY_ARE
from rlprune.utils.shapes import Shape

AT_ONCE = 25
"""Images of one batch that are read together, so that several processes share the work."""


@dataclass(eq=False)
class StreamImages(ImageSet):
    """Image files read, resized and cropped each time they are asked for.

    Args:
        labels: int64 of shape (N,).
        readers: read any of M files; all subsets share them.
        rows: which of the M files these are, int64 of shape (N,).
    """

    readers: Readers
    rows: Tensor

    @staticmethod
    def of(paths: Sequence[str], labels: Tensor, shape: Shape, workers: int = 0) -> "StreamImages":
        """All images of some files.

        Args:
            paths: of the files.
            labels: int64, one for each of them.
            shape: of the images given out.
            workers: processes that read ahead; 0 reads in this one.
        """
        return StreamImages(labels, Readers(Files(PathTable(paths), shape), workers), torch.arange(len(labels)))

    def subset(self, indices: Tensor) -> "StreamImages":
        """The images at ``indices``; see `ImageSet.subset`."""
        return replace(self, labels=self.labels[indices], rows=self.rows[indices])

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """See `ImageSet.take`."""
        parts = list(self.subset(indices).batches(AT_ONCE))
        return torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts])

    @property
    def shape(self) -> Shape:
        """Of the images given out."""
        return self.readers.files.shape

    def paths(self) -> list[str]:
        """The files, one after the other."""
        return [self.readers.files.paths[row] for row in self.rows.tolist()]

    def _pixels(
        self, order: Tensor, batch_size: int, augment: str, generator: torch.Generator | None, device: torch.device
    ) -> Iterator[Tensor]:
        order, seeds = order.cpu(), torch.zeros(len(self), dtype=torch.int64)
        if generator is not None and augment != AS_THEY_ARE:
            seeds = torch.randint(2**62, (len(self),), generator=generator, device=generator.device).cpu()

        def wanted() -> Iterator[list[Item]]:
            for chosen in order.split(batch_size):
                each = zip(self.rows[chosen].tolist(), seeds[chosen].tolist(), strict=True)
                yield [(row, augment, seed) for row, seed in each]

        return self.readers.read(wanted, alone=len(self) <= batch_size, pinned=device.type == "cuda")
