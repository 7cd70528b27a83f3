"""The weights of a network on the way of its training, from files."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from rlprune.errors import UserError

FIX = "a folder of safetensors files, named in the order of the training"


class Snapshots:
    """Reads one layer after the other, so that not all weights have to be in memory at once.

    Args:
        folder: of safetensors files, in the order of the numbers in their names.
        layers: convolutions by name, whose weights have to be in each.

    Raises:
        UserError: there are none, or a weight is missing, of another shape or not finite.
    """

    def __init__(self, folder: str, layers: Mapping[str, nn.Module]) -> None:
        self.paths = sorted(Path(folder).glob("*.safetensors"), key=lambda path: _numbers(path.stem))
        if not self.paths:
            raise UserError(f"unit kernel-group: {folder} holds no snapshots of a training: expected {FIX}")
        self.shapes = {name: tuple(layer.get_parameter("weight").shape) for name, layer in layers.items()}
        for path in self.paths:
            for name in layers:
                self._read(path, name)

    def weights(self, layer: str) -> Iterator[Tensor]:
        """Of one layer, in the order of the training."""
        return (self._read(path, layer) for path in self.paths)

    def _read(self, path: Path, layer: str) -> Tensor:
        key = f"{layer}.weight"
        try:
            with safe_open(path, "pt") as file:
                found: Tensor | None = file.get_tensor(key).float() if key in file.keys() else None  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise UserError(f"unit kernel-group: cannot read {path}: {error}") from None
        if found is None or tuple(found.shape) != self.shapes[layer]:
            there = "nothing" if found is None else tuple(found.shape)
            raise UserError(
                f"unit kernel-group: {path} is of another network: '{key}' is {there} there and "
                f"{self.shapes[layer]} here"
            )
        if not torch.isfinite(found).all():
            raise UserError(
                f"unit kernel-group: '{key}' in {path} is not finite: take snapshots from before it diverged"
            )
        return found


def _numbers(name: str) -> list[tuple[int, str]]:
    """A name by whose parts it comes in order: epoch-10 behind epoch-9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
