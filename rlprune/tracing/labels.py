"""Labels: which channel every element of a tensor belongs to, and which labels turn out to be one and the same channel.

A label tensor has the shape of the tensor that it describes. What is the same along a dimension is stored once there
(stride 0), so that a feature map's labels take as much memory as it has channels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

ALWAYS = 0
"""The label of an element that stays whatever is cut: of the input, of a constant, of the output."""
EVENLY = "it would have to be cut evenly with what always stays"


def always(shape: Sequence[int]) -> Tensor:
    """Labels of a tensor none of whose elements is ever cut."""
    return torch.zeros((), dtype=torch.int64).expand(tuple(shape))


def varies(labels: Tensor, dim: int) -> bool:
    """Whether the elements along a dimension belong to different channels."""
    if labels.shape[dim] < 2 or labels.stride(dim) == 0:
        return False
    return bool((labels != labels.narrow(dim, 0, 1)).any())


def varying(labels: Tensor) -> list[int]:
    """The dimensions along which the labels vary."""
    return [dim for dim in range(labels.dim()) if varies(labels, dim)]


def first(labels: Tensor, dims: Sequence[int]) -> Tensor:
    """The first element along some dimensions, which stay with size 1."""
    for dim in dims:
        labels = labels.narrow(dim, 0, min(1, labels.shape[dim]))
    return labels


def distinct(labels: Tensor) -> np.ndarray:
    """The channels that occur, without `ALWAYS`."""
    flat = first(labels, [dim for dim in range(labels.dim()) if labels.stride(dim) == 0]).flatten().numpy()
    return np.unique(flat[flat != ALWAYS])


class Ties:
    """Which labels are the same channel, which have to stay, and which have to be cut evenly."""

    def __init__(self) -> None:
        self.number = 1
        self._pairs: list[np.ndarray] = [np.zeros((2, 0), dtype=np.int64)]
        self._kept: list[tuple[np.ndarray, str]] = []
        self._tables: list[np.ndarray] = []
        self._parameters: list[tuple[np.ndarray, str]] = []
        self._weights: list[tuple[np.ndarray, list[np.ndarray], str]] = []

    def fresh(self, *shape: int) -> Tensor:
        """Labels that nobody has yet."""
        count = int(np.prod(shape))
        self.number += count
        return torch.arange(self.number - count, self.number).view(shape)

    def tie(self, one: Tensor, other: Tensor, why: str = EVENLY) -> bool:
        """Make two label tensors of one shape the same, element by element; `why` if some of them always stay.

        Returns:
            Whether channels that were different are the same now.
        """
        same = [dim for dim in range(one.dim()) if one.stride(dim) == other.stride(dim) == 0]
        pairs = np.stack([first(labels, same).flatten().numpy() for labels in (one, other)])
        pairs = pairs[:, pairs[0] != pairs[1]]
        if pairs.shape[1] > 4096:
            # One number a pair: sorting those takes a fiftieth of the time that sorting columns takes.
            pairs = np.stack(np.divmod(np.unique(pairs[0] * self.number + pairs[1]), self.number))
        stay = (pairs == ALWAYS).any(0)
        if stay.any():
            self._kept.append((pairs[:, stay].max(0), why))
        self._pairs.append(pairs[:, ~stay])
        return not stay.all()

    def even(self, labels: Tensor, dims: Sequence[int]) -> Tensor:
        """Make labels the same along some dimensions; returns them so."""
        head = first(labels, dims).expand(labels.shape)
        if any(varies(labels, dim) for dim in dims):
            self.tie(labels, head)
        return head

    def keep(self, labels: Tensor, why: str) -> None:
        """These channels are never cut."""
        if len(mine := distinct(labels)):
            self._kept.append((mine, why))

    def rectangle(self, labels: Tensor) -> None:
        """A dimension was split into several: what is cut must leave a rectangle."""
        self._tables.append(labels.numpy())

    def parameter(self, labels: Tensor, why: str) -> None:
        """A parameter can be cut along a single dimension only, and stays whole where that is not enough."""
        self._parameters.append((labels.numpy(), why))

    def weight(self, labels: Tensor, sides: Sequence[Tensor], why: str) -> None:
        """A parameter is a layer's weight and used as numbers, too: what these are tied to goes with one of its sides.

        Args:
            labels: of its elements, as they are used as numbers.
            sides: of every dimension, the layer's channels along it.
            why: it stays whole, where its numbers follow no single side.
        """
        self._weights.append((labels.numpy(), [side.numpy() for side in sides], why))

    def resolve(self, asked: np.ndarray | None = None) -> tuple[np.ndarray, dict[int, str]]:
        """(labels,) channel of every label, `ALWAYS` for those that are never cut, and why of those before.

        Args:
            asked: labels whose reasons are wanted; without, those of all, of which there may be millions.

        Returns:
            The channels; and for every label asked for that is never cut, the reason.
        """
        components = self._components()
        while True:
            channels = np.where(self._stays(components), ALWAYS, components + 1)
            if pairs := [pair for table in self._tables for pair in _rectangular(table, channels)]:
                self._pairs += pairs
                components = self._components()
            elif self._tie_weights(components, channels):
                components = self._components()
            elif broken := [(table, why) for table, why in self._parameters if self._is_broken(table, channels)]:
                self._kept += [(np.unique(table), why) for table, why in broken]
            else:
                break
        reasons: dict[int, str] = {}
        for mine, why in self._kept:
            for component in np.unique(components[mine]).tolist():
                reasons.setdefault(component, why)
        asked = np.arange(1, self.number) if asked is None else asked
        whole = asked[channels[asked] == ALWAYS]
        return channels, {int(label): reasons.get(int(components[label]), EVENLY) for label in whole}

    def _is_broken(self, table: np.ndarray, channels: np.ndarray) -> bool:
        """Whether a parameter would have to be cut along several dimensions; a weight has been looked at before."""
        weights = [int(mine.flat[0]) for mine, _, _ in self._weights]
        return len(changing(channels[table])) > 1 and int(table.flat[0]) not in weights

    def _tie_weights(self, components: np.ndarray, channels: np.ndarray) -> bool:
        """Whether a weight's numbers have been found to belong to one of its sides, or to none so that all stay."""
        for table, sides, why in self._weights:
            dims = changing(channels[table])
            everything = np.unique(np.concatenate([table.ravel(), *sides]))
            if not channels[everything].any() or not self._is_met(table, components):
                continue
            side = sides[dims[0]] if len(dims) == 1 else table
            if len(dims) != 1 or len(side) != table.shape[dims[0]]:
                self._kept.append((everything, why))
                return True
            mine = np.moveaxis(table, dims[0], 0).reshape(len(side), -1)[:, 0]
            if (components[mine] != components[side]).any():
                self._pairs.append(np.stack([mine, side]))
                return True
        return False

    def _is_met(self, table: np.ndarray, components: np.ndarray) -> bool:
        """Whether labels of a table are tied to others, or have to stay."""
        others = np.ones(self.number, dtype=bool)
        others[table] = False
        for kept, _ in self._kept:
            others[kept] = True
        return bool(np.isin(components[table], components[others]).any())

    def _components(self) -> np.ndarray:
        one, other = np.concatenate(self._pairs, axis=1)
        matrix = coo_array((np.ones(len(one), dtype=bool), (one, other)), shape=(self.number, self.number))
        return connected_components(matrix, directed=False)[1].astype(np.int64)

    def _stays(self, components: np.ndarray) -> np.ndarray:
        kept = np.zeros(self.number, dtype=bool)
        kept[components[ALWAYS]] = True
        for mine, _ in self._kept:
            kept[components[mine]] = True
        return kept[components]


def changing(table: np.ndarray) -> list[int]:
    """The dimensions along which a table of channels changes."""
    return [dim for dim in range(table.ndim) if table.size and (table != table.take([0], dim)).any()]


def _rectangular(labels: np.ndarray, channels: np.ndarray) -> list[np.ndarray]:
    """Ties that leave a table of labels changing along its last changing dimension only."""
    dims = changing(channels[labels])
    if len(dims) < 2:
        return []
    head = labels
    for dim in dims[:-1]:
        head = head.take([0], dim)
    return [np.stack([labels.ravel(), np.broadcast_to(head, labels.shape).ravel()])]
