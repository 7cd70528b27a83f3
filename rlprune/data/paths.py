"""Paths of a million files that many processes look at."""

import os
from collections.abc import Sequence

import torch


class PathTable:
    """Paths one after the other in two tensors.

    A tensor goes to another process as a handle of memory that both share. A list of ImageNet's paths is some 80 MB
    that every process would be sent, and unpack to more.

    Args:
        paths: in their order.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        encoded = [os.fsencode(path) for path in paths]
        self._text = torch.frombuffer(bytearray(b"".join(encoded) or b"\0"), dtype=torch.uint8)
        self._ends = torch.tensor([0, *map(len, encoded)]).cumsum(0)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        start, end = self._ends[index : index + 2].tolist()
        return os.fsdecode(self._text[start:end].numpy().tobytes())
