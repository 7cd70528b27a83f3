"""The pruning plan: the kept channels of every group, and its file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rlprune.errors import UserError, unknown
from rlprune.graph.kernels import KernelCut
from rlprune.graph.structure import Block, Graph
from rlprune.plans.kernels import UNIT, group_from_json, group_to_json
from rlprune.utils.files import FileFormat
from rlprune.utils.shapes import LARGEST_SIDE, MODES, parse_sides

PLAN_FORMAT = FileFormat("rlprune-plan")
LARGEST = {"classes": 10**5, "image_size": LARGEST_SIDE}
"""What nothing real has more of."""
NETWORK: dict[str, type | tuple[type, ...]] = {
    "model": str,
    "args": dict,
    "classes": int,
    "image_size": (int, str),
    "channels": int,
    "new_head": bool,
}
"""What is checked of what a plan tells of its network."""
DATA_SETTINGS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "data": (str, "text"),
    "data_root": (str, "text"),
    "image_size": ((int, str), "a whole number, or height x width such as 32x48"),
    "channels": (int, "a whole number"),
    "mean": (list, "numbers"),
    "std": (list, "numbers"),
    "search_images": (int, "a whole number"),
    "calibration_images": (int, "a whole number"),
    "seed": (int, "a whole number"),
}
"""What a plan may keep of the images that it was made for."""


OF_DENSE = ("dense_weights", "data_settings")
"""Where a plan comes from, as far as that is the dense network's and not the cut's."""


@dataclass(frozen=True)
class PruningPlan:
    """What every search produces and everything else consumes.

    Attributes:
        kept: group -> ascending indices of the channels that stay; none where its block is taken out.
        channels: group -> channels of the dense network.
        network: how to build the dense network (model, args, classes, image size, channels), or empty.
        provenance: where the plan comes from (criterion, budget, seed, hash of the dense weights), or empty.
        layers: group -> conv and linear layers that produce its channels, or empty.
        importance: group -> share of the criterion's scores that stays with its channels, or empty.
        sensitivity: group -> rise of the search loss that its own cut foretells, or empty where nobody measured it.
        blocks: residual blocks that are taken out -> what remains of each, see `rlprune.graph.structure.Block`.
        criteria: group -> the criterion that says what it keeps, or empty where that of the provenance is for all.
        kernels: in a plan of kernel groups, layer -> which slices its filters keep, without layers that stay whole;
            `kept` then holds so many places, and channels are input slices. None in a plan of channels.
    """

    kept: Mapping[str, tuple[int, ...]]
    channels: Mapping[str, int]
    network: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    layers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    importance: Mapping[str, float] = field(default_factory=dict)
    sensitivity: Mapping[str, float] = field(default_factory=dict)
    blocks: Mapping[str, str] = field(default_factory=dict)
    criteria: Mapping[str, str] = field(default_factory=dict)
    kernels: Mapping[str, KernelCut] | None = None

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
        if self.criteria:
            table["criterion"] = [self.criteria[name] for name in self.kept]
        if self.layers:
            table["layers"] = [" ".join(self.layers[name]) for name in self.kept]
        return table

    def then(self, second: "PruningPlan") -> "PruningPlan":
        """This plan and one that was made for the network that it leaves, as one plan for the dense network.

        Args:
            second: of the network cut by this plan; groups that it does not name stay as they are.

        Returns:
            The channels of the dense network that stay in the end. What is known of the dense network stays, what was
            measured for either cut alone does not.

        Raises:
            UserError: the second plan is for another network than this one leaves, or one of them cuts kernels.
        """
        if self.kernels is not None or second.kernels is not None:
            raise UserError("a plan of kernel groups and another plan make no single one: cut the dense network once")
        left = {name: len(indices) for name, indices in self.kept.items()}
        for name, size in second.channels.items():
            if name not in left:
                raise UserError(
                    f"the second plan does not belong to what the first leaves: {unknown('group', name, left)}"
                )
            if size != left[name]:
                raise UserError(
                    "the second plan does not belong to what the first leaves: "
                    f"'{name}' has {left[name]} channels there, the second plan says {size}"
                )
        kept = {
            name: tuple(indices[place] for place in second.kept.get(name, range(len(indices))))
            for name, indices in self.kept.items()
        }
        own = {key: value for key, value in second.provenance.items() if key not in OF_DENSE}
        provenance = {**self.provenance, **own}
        blocks = {**self.blocks, **second.blocks}
        return PruningPlan(kept, self.channels, self.network, provenance, self.layers, blocks=blocks)

    def mask(self, graph: Graph) -> np.ndarray:
        """(all groups' channels,) bool, True where a channel stays.

        Raises:
            UserError: the plan was made for another architecture.
        """
        check_same_groups(self.channels, graph, "the plan")
        for name in self.blocks:
            if name not in (known := [block.name for block in graph.blocks]):
                raise UserError(f"the plan does not belong to this network: {unknown('residual block', name, known)}")
        stays = np.zeros(int(graph.sizes.sum()), dtype=bool)
        for group, mine in zip(graph.groups, graph.split(stays), strict=True):
            mine[list(self.kept[group.name])] = True
        return stays

    def save(self, path: Path) -> None:
        """Write the plan as JSON, atomically."""
        groups: dict[str, dict[str, Any]] = {}
        for name, indices in self.kept.items():
            layers = {"layers": list(self.layers[name])} if self.layers else {}
            facts: dict[str, Any] = {key: known[name] for key, known in self._facts().items() if name in known}
            facts |= {"criterion": self.criteria[name]} if self.criteria else {}
            kept: dict[str, Any] = {"kept": list(indices)}
            if self.kernels is not None:
                kept = group_to_json(len(indices), self.kernels.get(name))
            groups[name] = {"channels": self.channels[name], **layers, **facts, **kept}
        content: dict[str, Any] = {"network": dict(self.network), "provenance": dict(self.provenance), "groups": groups}
        content |= {} if self.kernels is None else {"unit": UNIT}
        # Where there are none the file is as it always was; a reader that knows of no blocks refuses an empty group.
        content |= {"blocks": dict(self.blocks)} if self.blocks else {}
        PLAN_FORMAT.write(path, content)

    def _facts(self) -> dict[str, Mapping[str, float]]:
        return {"importance_kept": self.importance, "sensitivity": self.sensitivity}

    @staticmethod
    def load(path: Path) -> "PruningPlan":
        """Read a plan from JSON.

        Raises:
            UserError: not a plan, a newer format, or indices that cannot be.
        """
        data = PLAN_FORMAT.read(path)
        try:
            kept, kernels = _kept(data)
            channels = {name: index(group["channels"]) for name, group in data["groups"].items()}
            named = {name: tuple(group["layers"]) for name, group in data["groups"].items() if "layers" in group}
            facts = [
                {name: float(group[key]) for name, group in data["groups"].items() if key in group}
                for key in ("importance_kept", "sensitivity")
            ]
            network, provenance = dict(data.get("network", {})), dict(data.get("provenance", {}))
            blocks = dict(data.get("blocks", {}))
            if not all(isinstance(remains, str) for remains in blocks.values()):
                raise TypeError("blocks of which no name remains")
            check_network(network)
            check_data_settings(provenance.get("data_settings", {}))
            if not all(isinstance(layer, str) for layers in named.values() for layer in layers):
                raise TypeError("layers that are no names")
            criteria = {name: group["criterion"] for name, group in data["groups"].items() if "criterion" in group}
            if not all(isinstance(name, str) for name in criteria.values()):
                raise TypeError("criteria that are no names")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path} is not a complete plan: {error!r}") from None
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        _check_blocks(path, kept, blocks)
        for name, indices in kept.items():
            ordered = sorted(set(indices)) == list(indices)
            if indices and not (ordered and indices[0] >= 0 and indices[-1] < channels[name]):
                raise UserError(
                    f"{path}: kept channels of '{name}' must be ascending, different and within 0..{channels[name] - 1}"
                )
        # Older plans do not name their layers.
        layers = named if len(named) == len(kept) else {}
        criteria = criteria if len(criteria) == len(kept) else {}
        return PruningPlan(kept, channels, network, provenance, layers, facts[0], facts[1], blocks, criteria, kernels)


def _kept(data: Mapping[str, Any]) -> tuple[dict[str, tuple[int, ...]], dict[str, KernelCut] | None]:
    """The kept channels of every group in the file of a plan, or slices and which ones."""
    if (unit := data.get("unit")) is None:
        return {name: tuple(index(i) for i in group["kept"]) for name, group in data["groups"].items()}, None
    if unit != UNIT:
        raise ValueError(f"it is of the unit {unit!r}")
    found = {name: group_from_json(group) for name, group in data["groups"].items()}
    kept = {name: places for name, (places, _) in found.items()}
    return kept, {name: cut for name, (_, cut) in found.items() if cut is not None}


def _check_blocks(path: Path, kept: Mapping[str, tuple[int, ...]], blocks: Mapping[str, str]) -> None:
    """UserError unless just those groups keep no channel that are inside of blocks that are taken out."""
    inside = {group: name for group in kept for name in blocks if Block(name, ()).holds(group)}
    for group, indices in kept.items():
        if not indices and group not in inside:
            raise UserError(f"{path}: '{group}' keeps no channel, and no block that it belongs to is taken out")
        if indices and group in inside:
            raise UserError(f"{path}: the block '{inside[group]}' is taken out, and '{group}' in it keeps channels")
    if missing := sorted(set(blocks) - set(inside.values())):
        raise UserError(f"{path}: '{missing[0]}' is taken out, and none of the groups is inside")


def check_network(network: Mapping[str, Any]) -> None:
    """ValueError unless what is told of a network can be told of one; any of it may be missing."""
    for name, kind in NETWORK.items():
        if name not in network:
            continue
        value = network[name]
        if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
            raise ValueError(f"the network's {name} is {value!r}")
        if name in LARGEST and isinstance(value, int) and not 1 <= value <= LARGEST[name]:
            raise ValueError(f"the network's {name} is {value}: expected 1 to {LARGEST[name]}")
        _check_shape(name, value, "the network's ")


def _check_shape(name: str, value: Any, whose: str = "") -> None:
    """ValueError if a value is a size or a number of channels that no image has."""
    if name == "channels" and value not in MODES:
        raise ValueError(f"{whose}channels is {value}: expected {', '.join(map(str, MODES))}")
    if name == "image_size" and isinstance(value, str):
        try:
            parse_sides(value)
        except UserError as error:
            raise ValueError(f"{whose}{error}") from None


def check_data_settings(settings: Mapping[str, Any]) -> None:
    """ValueError unless what a plan keeps of its images can be told of images; any of it may be missing."""
    for name, value in dict(settings).items():
        if name not in DATA_SETTINGS:
            raise ValueError(f"unknown data setting '{name}'")
        kind, expected = DATA_SETTINGS[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{name} is {value!r}: expected {expected}")
        most = LARGEST["image_size"] if name == "image_size" else 2**63 - 1
        if isinstance(value, int) and not (name != "seed") <= value <= most:
            raise ValueError(f"{name} is {value}: expected {int(name != 'seed')} to {most}")
        _check_shape(name, value)


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

    Raises:
        UserError: a group keeps no channel and its block is not taken out.
    """
    names = [group.name for group in graph.groups]
    blocks = {block.name: block.remains for block in graph.taken_out(graph.counts_of(mask))}
    kept = {name: tuple(np.flatnonzero(mine).tolist()) for name, mine in zip(names, graph.split(mask), strict=True)}
    channels = {group.name: group.channels for group in graph.groups}
    layers = {group.name: graph.layers_of(group) for group in graph.groups}
    importance = {} if scores is None else dict(zip(names, _shares(graph, mask, scores), strict=True))
    sensitivity = (
        {} if rises is None else {name: round(float(rise), 6) for name, rise in zip(names, rises, strict=True)}
    )
    return PruningPlan(kept, channels, network or {}, provenance or {}, layers, importance, sensitivity, blocks)


def _shares(graph: Graph, mask: np.ndarray, scores: np.ndarray) -> list[float]:
    """How much of every group's scores stays; all of it where there is nothing to lose."""
    kept, whole = ([float(mine.sum()) for mine in graph.split(some)] for some in (scores * mask, scores))
    return [round(mine / all_, 6) if all_ > 0 else 1.0 for mine, all_ in zip(kept, whole, strict=True)]
