"""What the agent sees of a group: facts of the layer, its channels' importance, its sensitivity, its neighbours, and
the budget.

Every entry is relative to the network it comes from, and the length is fixed, so that a policy can meet a network it
has not been trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlprune.cost.exact import RESOURCES, Cost
from rlprune.envs.decisions.base import Decision, steps_of
from rlprune.evaluation.sensitivity import KEEP_RATIOS, Sensitivity
from rlprune.graph.structure import Graph

VERSION = 1
"""Raised whenever the meaning of an observation changes: policies know which they were trained on."""
DYNAMIC = 11
"""Wished ratio, log rescaling, last action; what the groups before and after keep; used and left of MACs and
parameters; both bounds. A bound on the latency adds three."""
SIDES = ("before", "after")
"""The groups that are read to make the channels of a group, and those that are made from them."""
QUANTILES = np.linspace(0.05, 0.95, 6)
BOUND = 10.0


@dataclass(frozen=True)
class Features:
    """Static features of every group, ready to be joined with what changes during a walk.

    Attributes:
        static: (groups, static features).
        names: one name for each feature of an observation, static ones first.
        neighbours: (2, groups, groups) weights of the groups before and after each group, which add up to 1, or to 0
            where there are none.
        asked: (steps, features) what is seen of what is decided in every step of a walk, the last of the features; None
            where all steps decide the same.
    """

    static: np.ndarray
    names: tuple[str, ...]
    neighbours: np.ndarray
    asked: np.ndarray | None = None

    @property
    def size(self) -> int:
        """Length of an observation."""
        return len(self.names)

    def observe(self, group: int, dynamic: np.ndarray, step: int = 0) -> np.ndarray:
        """(walks, features) float32 observations in one step, before one group, within ±`BOUND`."""
        parts = [np.broadcast_to(self.static[group], (len(dynamic), self.static.shape[1])), dynamic]
        if self.asked is not None:
            parts.append(np.broadcast_to(self.asked[step], (len(dynamic), self.asked.shape[1])))
        return np.clip(np.concatenate(parts, axis=1), -BOUND, BOUND).astype(np.float32)

    def asking(self, decisions: Sequence[Decision], cost: Cost, sensitivity: Sensitivity) -> "Features":
        """The same with what is seen of every decision when it is asked.

        Args:
            decisions: those that are switched on.
            cost: of the network.
            sensitivity: its curves.
        """
        columns: dict[str, np.ndarray] = {}
        steps = steps_of(decisions, cost)
        for decision in decisions:
            for name, values in decision.describe(cost, sensitivity).items():
                mine = [values[step.subject] if each is decision else 0.0 for each, step in steps]
                columns[name] = np.array(mine, dtype=float)
        if not columns:
            return self
        return replace(self, names=(*self.names, *columns), asked=np.stack(list(columns.values()), axis=1))


def build_features(
    graph: Graph,
    cost: Cost,
    scores: np.ndarray,
    activity: tuple[np.ndarray, np.ndarray],
    sensitivity: Sensitivity,
    base: np.ndarray,
    resources: tuple[str, ...] = RESOURCES,
) -> Features:
    """Describe every group.

    Args:
        graph: the structure of the network.
        cost: its cost.
        scores: (all groups' channels,) static importance, from the criterion on the weights.
        activity: two (all groups' channels,) arrays, runtime importance: the mean over calibration images of a
            channel's activation, and how much it varies from image to image.
        sensitivity: measured curves.
        base: (groups,) counts of the base plan.
        resources: what a walk sees the use of.
    """
    columns: dict[str, np.ndarray] = {}
    columns |= layer_facts(graph, cost)
    columns |= _spectrum("static", graph, scores)
    columns |= _spectrum("runtime", graph, activity[0])
    columns |= _spectrum("variation", graph, activity[1])
    top = max(float(np.abs(sensitivity.rises).max()), 1e-9)
    for ratio in KEEP_RATIOS:
        rises = [sensitivity.read(group, np.array(ratio)) for group in range(len(graph.groups))]
        columns[f"rise_at_{ratio:g}"] = np.array(rises) / top
    columns["base_ratio"] = base / graph.sizes
    neighbours = _neighbours(graph)
    told = ["macs_share", "params_share", *(name for name in columns if name.startswith(("rise_at_", "base_ratio")))]
    columns |= {f"{side}_{name}": weights @ columns[name] for side, weights in zip(SIDES, neighbours, strict=True)
                for name in told}  # fmt: skip
    seen = (f"{what}_{resource}" for what in ("used", "left", "budget") for resource in resources)
    names = (*columns, "wished", "rescale", "last_action", *(f"{side}_kept" for side in SIDES), *seen)
    return Features(np.stack(list(columns.values()), axis=1), names, neighbours)


def _neighbours(graph: Graph) -> np.ndarray:
    """(2, groups, groups) the weights of a mean over the groups before, and over those after."""
    linked = np.stack([graph.reads, graph.reads.T]).astype(float)
    return linked / np.maximum(linked.sum(axis=-1, keepdims=True), 1)


def layer_facts(graph: Graph, cost: Cost) -> dict[str, np.ndarray]:
    """What the structure of a network alone says of every group: name -> (groups,) numbers, most of them in 0..1."""
    number = len(graph.groups)
    saved = cost.saved_alone(np.ones_like(graph.sizes))
    firsts = [graph.first_layer(group) for group in graph.groups]
    shapes = [graph.weights[layer][0].shape for layer in firsts]
    positions = np.array([graph.layers[layer] for layer in firsts], dtype=float)
    return {
        "depth": np.arange(number) / max(number - 1, 1),
        "channels": graph.sizes / graph.sizes.max(),
        "log_channels": np.log2(graph.sizes) / 10,
        "inputs": _relative(np.array([shape[1] for shape in shapes])),
        "kernel": np.array([np.prod(shape[2:]) for shape in shapes]) / 9,
        "positions": _relative(np.sqrt(positions)),
        "producers": np.array([len(group.producers) for group in graph.groups]) / 10,
        "consumers": np.array([len(group.consumers) for group in graph.groups]) / 10,
        "macs_share": saved[:, 0],
        "params_share": saved[:, 1],
    }


def _relative(values: np.ndarray) -> np.ndarray:
    return values / values.max()


def _spectrum(name: str, graph: Graph, values: np.ndarray) -> dict[str, np.ndarray]:
    """Quantiles of a group's channel importances relative to their mean: flat spectra mean interchangeable channels."""
    rows = [np.quantile(mine / max(mine.mean(), 1e-12), QUANTILES) for mine in graph.split(values)]
    return {f"{name}_q{100 * q:.0f}": column for q, column in zip(QUANTILES, np.array(rows).T, strict=True)}
