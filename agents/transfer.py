"""The network that a policy was trained on, and how another one compares: what it borrows, and how far away it is.

A walk needs a base plan and observations, and both need sensitivity curves, which cost an evaluation a point. Another
network borrows them from the groups at source that are most like its own (nearest neighbours weighted by distance:
Shepard, 1968).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rlprune.cost.exact import Cost
from rlprune.envs.observation import Features, layer_facts
from rlprune.evaluation.sensitivity import Sensitivity
from rlprune.graph.structure import Graph
from rlprune.methods.allocators.base_plans import KINDS
from rlprune.plans.plan import check_network
from rlprune.workloads.workload import Workload, inputs_of

HERE = "the very network it was trained on"
NEIGHBOURS = 3
HAIR = 1e-4
"""Keeps the weight of a group that has its like at source finite."""
FLOOR = 0.1
"""Smallest scale of a feature: one that hardly varies at source must not decide everything elsewhere."""
SHARES = ("macs_share", "params_share")
MEASURED = ("rise_at_", "base_ratio")
"""Features that follow from the curves themselves, of a group or of its neighbours."""


@dataclass(frozen=True)
class SourceNetwork:
    """What a policy remembers of the network that it was trained on.

    Attributes:
        network: how to build it: model, args, classes, image size.
        data: the name of its images.
        inputs: hashes of its dense weights and its images.
        channels: group -> channels, in order.
        names: of the static features.
        facts: (groups, static features).
        sensitivity: its measured curves.
        base: the kind of base plan that was best there, one of `rlprune.methods.allocators.base_plans.KINDS`.
    """

    network: Mapping[str, Any]
    data: str
    inputs: Mapping[str, str]
    channels: Mapping[str, int]
    names: tuple[str, ...]
    facts: np.ndarray
    sensitivity: Sensitivity
    base: str

    def is_same_architecture(self, graph: Graph) -> bool:
        """Whether a network has the same groups of the same sizes in the same order."""
        return [(group.name, group.channels) for group in graph.groups] == list(self.channels.items())

    def borrow(self, graph: Graph, cost: Cost) -> Sensitivity:
        """Sensitivity curves for another network, without an evaluation.

        Args:
            graph: its structure.
            cost: its cost.

        Returns:
            The curves of this one where all groups are the same, else for every group those of the groups that are
            nearest by the facts of their layers.
        """
        if self.is_same_architecture(graph):
            return self.sensitivity
        here = layer_facts(graph, cost)
        apart = _apart(_structure(dict(zip(self.names, self.facts.T, strict=True)), here), _structure(here, here))
        # A group that could not be cut says nothing about cuts, unless none could.
        cut = np.flatnonzero(self.sensitivity.lowest < 1)
        known = cut if len(cut) else np.arange(len(self.facts))
        near = known[np.argsort(apart[:, known], axis=1, kind="stable")[:, :NEIGHBOURS]]
        weights = 1 / (np.take_along_axis(apart, near, axis=1) ** 2 + HAIR)
        # The points are those of the nearest: there the others' curves are read.
        ratios = self.sensitivity.ratios[near[:, 0]]
        read = [
            [self.sensitivity.read(other, points) for other in others]
            for others, points in zip(near, ratios, strict=True)
        ]
        rises = (weights[..., None] * np.array(read)).sum(1) / weights.sum(1, keepdims=True)
        return Sensitivity(ratios, rises, self._borrowed_blocks(graph))

    def _borrowed_blocks(self, graph: Graph) -> tuple[tuple[tuple[int, ...], float], ...]:
        """What blocks of another network cost, by those here at the same depth."""
        if not self.sensitivity.blocks:
            return ()
        depths = [min(groups) / len(self.channels) for groups, _ in self.sensitivity.blocks]
        rises = [rise for _, rise in self.sensitivity.blocks]
        there = [min(block.groups) / len(graph.groups) for block in graph.blocks]
        return tuple(
            (block.groups, float(rise))
            for block, rise in zip(graph.blocks, np.interp(there, depths, rises), strict=True)
        )

    def unlike(self, graph: Graph, cost: Cost) -> float:
        """How far the layers of another network are from the nearest of this one's; see `distance`."""
        here = layer_facts(graph, cost)
        return _nearest(_structure(dict(zip(self.names, self.facts.T, strict=True)), here), _structure(here, here))

    def distance(self, features: Features) -> float:
        """How far the groups of another network are from the nearest of this one's, in all that is seen of them
        without an evaluation: 0 where each has its like, 1 where they differ as much as this one's do among themselves.
        """
        here, there = self._seen(features)
        return _nearest(self.facts[:, here], features.static[:, there])

    def familiar(self, features: Features) -> Features:
        """What is seen of a network of the same architecture, half-way to what was seen here.

        A policy has only ever seen one network, and reacts to small differences by large ones.
        """
        static, (here, there) = features.static.copy(), self._seen(features)
        static[:, there] = (static[:, there] + self.facts[:, here]) / 2
        return replace(features, static=static)

    def _seen(self, features: Features) -> tuple[list[int], list[int]]:
        """The places, here and in another network's features, of those that no curve goes into."""
        seen = [name for name in self.names if not any(part in name for part in MEASURED)]
        return [self.names.index(name) for name in seen], [features.names.index(name) for name in seen]

    def kind(self, workload: Workload) -> str:
        """What kind of journey it is to another network."""
        inputs = inputs_of(workload)
        elsewhere = "" if self._same_images(workload, inputs["images"]) else ", on another data set"
        if self.is_same_architecture(workload.graph):
            if inputs["dense weights"] == self.inputs["dense weights"]:
                return HERE if inputs == dict(self.inputs) else "the same network, with other images held out"
            return f"the same architecture{elsewhere or ' with other weights'}"
        mine, other = (family(str(network["model"])) for network in (self.network, workload.network))
        return (f"another depth or width of {mine}" if mine == other else f"another family than {mine}") + elsewhere

    def _same_images(self, workload: Workload, images: str) -> bool:
        # The hash tells that a folder was moved, the name that other images were held out.
        return workload.data.name == self.data or images == self.inputs["images"]

    def as_json(self) -> dict[str, Any]:
        """Plain content for a file; the names of the features stand elsewhere."""
        curves = (self.sensitivity.ratios, self.sensitivity.rises)
        groups = [
            {
                "group": name, "channels": channels, "facts": facts.tolist(),
                "ratios": ratios.tolist(), "rises": rises.tolist(),
            }
            for (name, channels), facts, ratios, rises in zip(self.channels.items(), self.facts, *curves, strict=True)
        ]  # fmt: skip
        about = {"network": dict(self.network), "data": self.data, "inputs": dict(self.inputs), "base": self.base}
        blocks = [{"groups": list(inner), "rise": rise} for inner, rise in self.sensitivity.blocks]
        return {**about, "groups": groups, **({"blocks": blocks} if blocks else {})}

    @staticmethod
    def from_json(data: Mapping[str, Any], names: tuple[str, ...]) -> "SourceNetwork":
        """The same, back; KeyError, TypeError or ValueError where it is not complete.

        Args:
            data: what `as_json` gave.
            names: of the static features.
        """
        groups = data["groups"]
        facts, rises = (np.array([group[key] for group in groups], dtype=float) for key in ("facts", "rises"))
        # Files of the third version have nominal ratios, the same for all groups.
        ratios = np.array(data["ratios"] if "ratios" in data else [group["ratios"] for group in groups], dtype=float)
        if facts.shape != (len(groups), len(names)) or rises.shape != (len(groups), ratios.shape[-1]):
            raise ValueError("facts, ratios or rises of the wrong length")
        if not all(np.isfinite(numbers).all() for numbers in (facts, ratios, rises)):
            raise ValueError("facts, ratios or rises that are not finite")
        channels = {str(group["group"]): int(group["channels"]) for group in groups}
        sensitivity = Sensitivity(ratios, rises, _blocks(data.get("blocks", []), len(groups)))
        about = (data["network"], data["data"], data["inputs"])
        check_network(data["network"])
        return SourceNetwork(*about, channels, tuple(names), facts, sensitivity, _base(data))


def _blocks(data: Sequence[Mapping[str, Any]], groups: int) -> tuple[tuple[tuple[int, ...], float], ...]:
    """What each block alone costs; ValueError for groups that are not there."""
    found = tuple((tuple(int(group) for group in block["groups"]), float(block["rise"])) for block in data)
    for inner, rise in found:
        if not inner or not all(0 <= group < groups for group in inner) or not np.isfinite(rise):
            raise ValueError("blocks that do not belong to the groups")
    return found


def _base(data: Mapping[str, Any]) -> str:
    """The kind of base plan; policies up to format 3 only tell whether it was the uniform one."""
    kind = data["base"] if "base" in data else KINDS[bool(data["even"])]
    if kind not in KINDS:
        raise ValueError(f"a base plan of an unknown kind {kind!r}")
    return str(kind)


def nearest_source(sources: Sequence[SourceNetwork], workload: Workload) -> SourceNetwork:
    """Of the networks that a policy was trained on the one that is most like another: the very same, else one of the
    same architecture, else the one with the most similar layers."""
    graph, inputs = workload.graph, inputs_of(workload)

    def strangeness(source: SourceNetwork) -> tuple[bool, int, float]:
        different = sum(source.inputs.get(name) != value for name, value in inputs.items())
        return not source.is_same_architecture(graph), different, source.unlike(graph, workload.cost)

    return min(sources, key=strangeness)


def family(model: str) -> str:
    """What networks of several depths and widths have in common: resnet20 and torchvision/resnet18 are resnets."""
    if ".py:" in model:
        return model
    name = model.rpartition("/")[2]
    return re.split(r"_?v?\d|_", name)[0] or name


def _structure(facts: Mapping[str, np.ndarray], like: Mapping[str, np.ndarray]) -> np.ndarray:
    """(groups, facts of layers); shares of the cost relative to their mean, for deeper networks have smaller ones."""
    columns = [facts[name] / max(facts[name].mean(), 1e-9) if name in SHARES else facts[name] for name in like]
    return np.stack(columns, axis=1)


def _nearest(source: np.ndarray, here: np.ndarray) -> float:
    """The mean distance of groups from the nearest one at source."""
    return float(_apart(source, here).min(axis=1).mean())


def _apart(source: np.ndarray, here: np.ndarray) -> np.ndarray:
    """(groups here, groups at source) root mean square differences, every feature relative to its spread at source."""
    scale = np.maximum(source.std(axis=0), FLOOR)
    return np.sqrt((((here[:, None] - source[None]) / scale) ** 2).mean(axis=-1))
