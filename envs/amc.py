"""AMC's walk (He et al., 2018, arXiv 1802.03494): absolute keep ratios behind an action wall.

What a layer is to the paper is a group of coupled channels here, described by the first layer that produces it.
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from torch import nn

from rlprune.cost.projection import BudgetProjector
from rlprune.envs.checks import checked_actions, checked_reward
from rlprune.graph.structure import Graph

FEATURES = ("index", "n", "c", "h", "w", "stride", "kernel", "flops", "reduced", "rest", "last_action")
FLOOR = 0.2
"""At most 80 % of a convolution goes, as in the paper, unless the budget cannot be met so."""


class AmcEnv(gym.Env[np.ndarray, np.ndarray]):
    """One walk over the groups an episode; the action is the keep ratio itself.

    The wall: a group keeps no more than what the groups still to come can compensate for at their smallest. Nothing is
    filled up, so that a plan may stay below the budget.

    Args:
        projector: budget and cost.
        layers: (groups, 8) the features that do not change during a walk, within [0, 1].
        flops: (groups,) share of the network's MACs in the layers that produce a group.
        reward: (groups,) kept counts -> the reward of the finished plan.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self, projector: BudgetProjector, layers: np.ndarray, flops: np.ndarray, reward: Callable[[np.ndarray], float]
    ) -> None:
        self.projector, self.layers, self.reward = projector, layers, reward
        # rest[t] is what lies behind layer t.
        self.rest = flops.sum() - np.cumsum(flops)
        least = np.maximum(projector.minimum, projector.quantise(np.ceil(FLOOR * projector.sizes)))
        self.floor = least if projector.fits(least) else projector.minimum
        self.observation_space = spaces.Box(0.0, 1.0, (len(FEATURES),), np.float32)
        self.action_space = spaces.Box(0.0, 1.0, (1,), np.float32)
        # As after an episode: there is none before `reset`.
        self.counts, self.group, self.ratio = self.floor.copy(), len(projector.sizes), 1.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start at the first group; the groups to come count at their smallest."""
        super().reset(seed=seed)
        self.counts, self.group, self.ratio = self.floor.copy(), 0, 1.0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Decide one group; `info` holds the keep ratio behind the wall, the reward comes at the end.

        Raises:
            ValueError: not one finite number, no episode is under way, or a reward that is none.
        """
        if self.group == len(self.projector.sizes):
            raise ValueError("no episode is under way: call reset() before step()")
        action, size = checked_actions(action, (1,)), self.projector.sizes[self.group]
        wished = self.counts.astype(float)
        wished[self.group] = np.floor(float(np.clip(action, 0, 1)[0]) * size + 0.5)
        self.counts = np.maximum(self.projector.quantise(wished), self.floor)
        if not self.projector.fits(self.counts):
            self.counts[self.group] = self.projector.largest(self.counts[None], self.group)[0]
        self.ratio = float(self.counts[self.group] / size)
        self.group += 1
        finished = self.group == len(self.counts)
        reward = checked_reward(self.reward(self.counts)) if finished else 0.0
        return self._observe(), reward, finished, False, {"ratio": self.ratio}

    def _observe(self) -> np.ndarray:
        """(11,) `FEATURES` of the current group; zeros when the walk is over."""
        if self.group == len(self.counts):
            return np.zeros(len(FEATURES), dtype=np.float32)
        decided = np.where(np.arange(len(self.counts)) < self.group, self.counts, self.projector.sizes)
        reduced = 1 - self.projector.cost.ratios(decided)[0]
        changing = (reduced, self.rest[self.group], self.ratio)
        return np.clip([*self.layers[self.group], *changing], 0, 1).astype(np.float32)


def describe_layers(module: nn.Module, graph: Graph) -> np.ndarray:
    """(groups, 8) index, n, c, h, w, stride, kernel and FLOPs of every group, each scaled to [0, 1] over the groups.

    Output maps are taken as square; a layer that is no module of the network has stride 1.
    """
    layers = dict(module.named_modules())
    rows = []
    for index, group in enumerate(graph.groups):
        first = graph.first_layer(group)
        shape, side = graph.weights[first][0].shape, np.sqrt(graph.layers[first])
        stride = getattr(layers.get(first), "stride", 1)
        stride = stride[0] if isinstance(stride, tuple) else stride
        kernel = np.sqrt(np.prod(shape[2:]))
        rows.append([index, group.channels, shape[1], side, side, stride, kernel, _macs(graph, group.producers)])
    table = np.array(rows, dtype=float)
    low, span = table.min(axis=0), np.ptp(table, axis=0)
    return (table - low) / np.where(span > 0, span, 1)


def shares_of_macs(graph: Graph, dense: float) -> np.ndarray:
    """(groups,) share of the dense network's MACs in the layers that produce a group."""
    return np.array([_macs(graph, group.producers) for group in graph.groups]) / dense


def _macs(graph: Graph, producers: tuple[str, ...]) -> float:
    tensors = [graph.weights[layer][0] for layer in producers if layer in graph.weights]
    return float(sum(np.prod(tensor.shape) * tensor.positions for tensor in tensors))
