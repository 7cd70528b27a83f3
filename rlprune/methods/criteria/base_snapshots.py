"""The dynamics of a training, from snapshots of its weights (Redman et al., 2022, arXiv 2110.14856)."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rlprune.errors import UserError
from rlprune.graph.structure import Graph
from rlprune.methods.criteria.base import filters, sum_over_producers

RANK = 1e-6
"""Singular values below this share of the largest are cut: late in a training all snapshots are next to the same."""
BLOCK = 2**18
"""Weights of all snapshots that are multiplied in float64 at a time."""


class Snapshots:
    """Weights of one network at equal distances of its training.

    Args:
        name: of the criterion, for errors.
        folder: of safetensors files, in the order of the numbers in their names; empty where the user gave none.

    Raises:
        UserError: there are less than three files.
    """

    def __init__(self, name: str, folder: str) -> None:
        self.name = name
        fix = f"rlprune train --snapshots 20 writes them, then --criterion {name}:snapshots=FOLDER"
        if not folder:
            raise UserError(f"criterion {name} needs snapshots of a training: {fix}")
        self.paths = sorted(Path(folder).glob("*.safetensors"), key=lambda path: _numbers(path.stem))
        if len(self.paths) < 3:
            raise UserError(
                f"criterion {name}: {folder} holds {len(self.paths)} safetensors files, at least 3 are needed: {fix}"
            )

    def read(self, key: str, shape: tuple[int, ...]) -> Tensor:
        """(snapshots, weights) one tensor of all of them, flat.

        Raises:
            UserError: it is missing somewhere, has another shape, or is not finite.
        """
        return torch.stack([self._one(path, key, shape) for path in self.paths])

    def _one(self, path: Path, key: str, shape: tuple[int, ...]) -> Tensor:
        try:
            with safe_open(path, "pt") as file:
                found = file.get_tensor(key).float() if key in file.keys() else None  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise UserError(f"criterion {self.name}: cannot read {path}: {error}") from None
        if found is None or tuple(found.shape) != shape:
            there = "nothing" if found is None else tuple(found.shape)
            raise UserError(
                f"criterion {self.name}: {path} is of another network, it has {there} for {key}, here it is {shape}"
            )
        if not torch.isfinite(found).all():
            raise UserError(
                f"criterion {self.name}: {key} in {path} holds NaN or infinite values, as of a training that diverged: "
                "take snapshots of another"
            )
        return found.flatten()


def _numbers(name: str) -> list[tuple[int, str]]:
    """By which names are in order, be their numbers of as many digits or not."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


class Dynamics:
    """The modes of a training by exact dynamic mode decomposition, without all snapshots in memory at once.

    With X all snapshots but the last and Y all but the first, each a column, these are the eigenpairs of the best
    linear map from X to Y (Tu et al., 2014, arXiv 1312.0041). All that is decomposed are inner products of snapshots;
    modes are combinations of Y, put together one layer at a time.

    Args:
        snapshots: of a training.
        graph: structure of the network; all weights of its convolutions and linear layers take part.
    """

    def __init__(self, snapshots: Snapshots, graph: Graph) -> None:
        self.snapshots, self.graph = snapshots, graph
        self.shapes = {tensor.name: tensor.shape for tensor in graph.tensors if tensor.positions}
        products = np.zeros((len(snapshots.paths), len(snapshots.paths)))
        for _, rows in self._layers():
            for block in rows.split(BLOCK, dim=1):
                products += (block.double() @ block.double().T).numpy()
        self.eigenvalues, self._combinations = decomposed(products)

    def _layers(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, self.snapshots.read(name, shape)) for name, shape in self.shapes.items())

    def scores(self, number: int) -> np.ndarray:
        """(all groups' channels,) sums of the magnitudes of a mode over the filters that produce a channel."""
        mode = self._combinations[:, number]
        combination = torch.from_numpy(np.stack([mode.real, mode.imag]))
        made = {weight.name for weight, _ in self.graph.weights.values()}
        modes = {
            name: torch.cat([(combination @ block.double()).norm(dim=0) for block in rows[1:].split(BLOCK, dim=1)])
            for name, rows in self._layers()
            if name in made
        }
        shaped = {name: mode.reshape(self.shapes[name]) for name, mode in modes.items()}
        magnitudes = {layer: rows.sum(1).numpy() for layer, rows in filters(self.graph, shaped).items()}
        return sum_over_producers(self.graph, magnitudes)


def decomposed(products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact dynamic mode decomposition, from the inner products of snapshots.

    Args:
        products: (snapshots, snapshots).

    Returns:
        (modes,) complex eigenvalues, and (snapshots - 1, modes) how each mode is made of all snapshots but the first.
    """
    squares, vectors = np.linalg.eigh(products[:-1, :-1])
    singular = np.sqrt(np.maximum(squares, 0))
    kept = singular > RANK * singular.max()
    # V / S, with X = U S V^T; the map in the basis U is S^-1 V^T X^T Y V S^-1.
    basis = vectors[:, kept] / singular[kept]
    values, inside = np.linalg.eig(basis.T @ products[:-1, 1:] @ basis)
    alive = abs(values) > RANK
    return values[alive], (basis @ inside[:, alive]) / values[alive]
