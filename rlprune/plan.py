"""The pruning plan: the kept channels of every group, its ratio table and its file."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rlprune.config import resolve
from rlprune.cost import Cost, group_costs
from rlprune.errors import UserError, unknown
from rlprune.files import read_json, write_json
from rlprune.graph import Graph
from rlprune.settings import LARGEST_IMAGE, KeptData

FORMAT = "rlprune-plan"
VERSION = 1
LARGEST = {"classes": 10**5, "image_size": LARGEST_IMAGE}
"""What nothing real has more of."""


@dataclass(frozen=True)
class PruningPlan:
    """What every search produces and everything else consumes.

    Attributes:
        kept: group -> ascending indices of the channels that stay.
        channels: group -> channels of the dense network.
        network: how to build the dense network (model, args, classes, image size), or empty.
        provenance: where the plan comes from (criterion, budget, seed, hash of the dense weights), or empty.
        layers: group -> conv and linear layers that produce its channels, or empty.
        importance: group -> share of the criterion's scores that stays with its channels, or empty.
        sensitivity: group -> rise of the search loss that its own cut foretells, or empty where nobody measured it.
    """

    kept: Mapping[str, tuple[int, ...]]
    channels: Mapping[str, int]
    network: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    layers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    importance: Mapping[str, float] = field(default_factory=dict)
    sensitivity: Mapping[str, float] = field(default_factory=dict)

    def counts(self) -> np.ndarray:
        """(groups,) kept channels in the order of the plan."""
        return np.array([len(indices) for indices in self.kept.values()], dtype=np.int64)

    def ratios(self) -> dict[str, float]:
        """Group -> keep ratio."""
        return {name: len(indices) / self.channels[name] for name, indices in self.kept.items()}

    def table(self) -> pd.DataFrame:
        """The columns of the ratio table that need no network."""
        channels, counts = np.array([self.channels[name] for name in self.kept]), self.counts()
        columns = {"group": list(self.kept), "channels": channels, "kept": counts}
        table = pd.DataFrame(columns | {"keep_ratio": np.round(counts / channels, 6)})
        table["importance_kept"], table["sensitivity"] = (
            np.array([known.get(name, np.nan) for name in self.kept], dtype=float)
            for known in (self.importance, self.sensitivity)
        )
        if self.layers:
            table["layers"] = [" ".join(self.layers[name]) for name in self.kept]
        return table

    def mask(self, graph: Graph) -> np.ndarray:
        """(all groups' channels,) bool, True where a channel stays.

        Raises:
            UserError: the plan was made for another architecture.
        """
        check_same_groups(self.channels, graph, "the plan")
        stays = np.zeros(int(graph.sizes.sum()), dtype=bool)
        for group, mine in zip(graph.groups, graph.split(stays), strict=True):
            mine[list(self.kept[group.name])] = True
        return stays

    def save(self, path: Path) -> None:
        """Write the plan as JSON, atomically."""
        groups: dict[str, dict[str, Any]] = {}
        for name, indices in self.kept.items():
            layers = {"layers": list(self.layers[name])} if self.layers else {}
            facts = {key: known[name] for key, known in self._facts().items() if name in known}
            groups[name] = {"channels": self.channels[name], **layers, **facts, "kept": list(indices)}
        write_json(
            path,
            {
                "format": FORMAT,
                "version": VERSION,
                "network": dict(self.network),
                "provenance": dict(self.provenance),
                "groups": groups,
            },
        )

    def _facts(self) -> dict[str, Mapping[str, float]]:
        return {"importance_kept": self.importance, "sensitivity": self.sensitivity}

    @staticmethod
    def load(path: Path) -> "PruningPlan":
        """Read a plan from JSON.

        Raises:
            UserError: not a plan, a newer format, or indices that cannot be.
        """
        data = read_json(path, FORMAT, VERSION)
        try:
            kept = {name: tuple(index(i) for i in group["kept"]) for name, group in data["groups"].items()}
            channels = {name: index(group["channels"]) for name, group in data["groups"].items()}
            named = {name: tuple(group["layers"]) for name, group in data["groups"].items() if "layers" in group}
            facts = [
                {name: float(group[key]) for name, group in data["groups"].items() if key in group}
                for key in ("importance_kept", "sensitivity")
            ]
            network, provenance = dict(data.get("network", {})), dict(data.get("provenance", {}))
            check_network(network)
            resolve(KeptData, provenance.get("data_settings", {}))
            if not all(isinstance(layer, str) for layers in named.values() for layer in layers):
                raise TypeError("layers that are no names")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path} is not a complete plan: {error!r}") from None
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        for name, indices in kept.items():
            if not indices or sorted(set(indices)) != list(indices) or indices[0] < 0 or indices[-1] >= channels[name]:
                raise UserError(
                    f"{path}: kept channels of '{name}' must be ascending, different and within "
                    f"0..{channels[name] - 1}, and at least one must stay"
                )
        # Older plans do not name their layers.
        return PruningPlan(kept, channels, network, provenance, named if len(named) == len(kept) else {}, *facts)


def check_network(network: Mapping[str, Any]) -> None:
    """ValueError unless what is told of a network can be told of one; any of it may be missing."""
    for name, kind in {"model": str, "args": dict, "classes": int, "image_size": int}.items():
        if name not in network:
            continue
        value = network[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"the network's {name} is {value!r}")
        if isinstance(value, int) and not 1 <= value <= LARGEST[name]:
            raise ValueError(f"the network's {name} is {value}: expected 1 to {LARGEST[name]}")


def plan_key(counts: Iterable[int]) -> tuple[int, ...]:
    """What kept counts are remembered by."""
    return tuple(int(count) for count in counts)


def counts_to_text(counts: Iterable[int]) -> str:
    """Kept counts as a cell of a table."""
    return " ".join(map(str, plan_key(counts)))


def text_to_key(text: str) -> tuple[int, ...]:
    """What `counts_to_text` has written, as `plan_key` has it."""
    return tuple(map(int, text.split()))


def check_same_groups(channels: Mapping[str, int], graph: Graph, what: str) -> None:
    """Raise UserError unless group names and sizes are those of the network, naming the first difference."""
    here = {group.name: group.channels for group in graph.groups}
    for name, size in channels.items():
        if name not in here:
            raise UserError(f"{what} does not belong to this network: {unknown('group', name, here)}")
        if here[name] != size:
            raise UserError(
                f"{what} does not belong to this network: '{name}' has {here[name]} channels, {what} says {size}"
            )
    missing = [name for name in here if name not in channels]
    if missing:
        raise UserError(f"{what} does not belong to this network: it says nothing about '{missing[0]}'")


def top_mask(graph: Graph, counts: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Keep the highest-scoring channels of every group.

    Args:
        graph: structure of the network.
        counts: (groups,) how many stay.
        scores: (all groups' channels,) from a criterion.

    Returns:
        (all groups' channels,) bool.
    """
    stays = np.zeros(len(scores), dtype=bool)
    for mine, values, count in zip(graph.split(stays), graph.split(scores), counts, strict=True):
        mine[np.argsort(-values, kind="stable")[: int(count)]] = True
    return stays


def make_plan(
    graph: Graph,
    mask: np.ndarray,
    network: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    scores: np.ndarray | None = None,
    rises: np.ndarray | None = None,
) -> PruningPlan:
    """The plan that keeps the channels where `mask` is True.

    Args:
        graph: structure of the network.
        mask: (all groups' channels,) bool.
        network, provenance: see `PruningPlan`.
        scores: (all groups' channels,) of the criterion, where they are known.
        rises: (groups,) rises of the search loss that each group's own cut foretells, where they are known.
    """
    names = [group.name for group in graph.groups]
    kept = {name: tuple(np.flatnonzero(mine).tolist()) for name, mine in zip(names, graph.split(mask), strict=True)}
    channels = {group.name: group.channels for group in graph.groups}
    layers = {group.name: graph.layers_of(group) for group in graph.groups}
    importance = {} if scores is None else dict(zip(names, _shares(graph, mask, scores), strict=True))
    sensitivity = (
        {} if rises is None else {name: round(float(rise), 6) for name, rise in zip(names, rises, strict=True)}
    )
    return PruningPlan(kept, channels, network or {}, provenance or {}, layers, importance, sensitivity)


def _shares(graph: Graph, mask: np.ndarray, scores: np.ndarray) -> list[float]:
    """How much of every group's scores stays; all of it where there is nothing to lose."""
    kept, whole = ([float(mine.sum()) for mine in graph.split(some)] for some in (scores * mask, scores))
    return [round(mine / all_, 6) if all_ > 0 else 1.0 for mine, all_ in zip(kept, whole, strict=True)]


def rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table's rows as JSON has them: what is not known is None."""
    return [
        {str(key): None if value != value else value for key, value in row.items()} for row in table.to_dict("records")
    ]


def ratio_table(graph: Graph, cost: Cost, plan: PruningPlan) -> pd.DataFrame:
    """The table people read: one row a group.

    Columns: group, tied (conv and linear layers besides the first), channels, kept, keep_ratio, the share of the
    criterion's scores that is kept and the rise of the search loss that this cut alone foretells (both empty where
    they are not known), the share of the dense network's MACs and parameters that goes when this group alone is cut to
    its kept count, the MACs and parameters of the weights that make its channels before and after all groups are cut,
    and all its conv and linear layers with blanks in between.
    """
    counts, facts = plan.counts(), plan.table()
    saved = cost.saved_alone(counts)
    before, after = (np.rint(group_costs(graph, some)).astype(np.int64) for some in (graph.sizes, counts))
    layers = [graph.layers_of(group) for group in graph.groups]
    return pd.DataFrame(
        {
            "group": [group.name for group in graph.groups],
            "tied": [len(mine) - 1 for mine in layers],
            "channels": graph.sizes,
            "kept": counts,
            **{name: facts[name] for name in ("keep_ratio", "importance_kept", "sensitivity")},
            "macs_saved_alone": np.round(saved[:, 0], 6),
            "params_saved_alone": np.round(saved[:, 1], 6),
            "macs_before": before[:, 0],
            "macs_after": after[:, 0],
            "params_before": before[:, 1],
            "params_after": after[:, 1],
            "layers": [" ".join(mine) for mine in layers],
        }
    )
