"""Every image of a batch is an environment, and a step is one gated layer of the network for the whole batch.

Reward as in Chen, Chen & Pan (NeurIPS 2020), with the sign of the penalty that the text has lost: minus the loss of the
image over the running mean of all losses, minus what goes beyond the budget. What has run is counted from the merged
masks, both sides of every layer.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn
from torch import Tensor

from rlprune.cost.exact import Cost
from rlprune.envs.checks import checked_actions
from rlprune.envs.stepwise import Asked, PausedForward
from rlprune.envs.vector import ArrayVecEnv
from rlprune.gating.controller import Walk, to_keep
from rlprune.gating.gate import KeepRatios
from rlprune.gating.layout import Layout
from rlprune.gating.masks import removed_count
from rlprune.gating.network import GatedNetwork
from rlprune.gating.policy import CONTEXT
from rlprune.tasks.classification import CLASSIFICATION

Batches = Callable[[], tuple[Tensor, Tensor, np.ndarray]]
"""The next images, labels and (images,) budgets."""
PENALTY, TOLERANCE, BONUS = 1.2, 0.03, 0.1
"""The price of cost beyond the budget, -PENALTY * (exp(beyond / TOLERANCE) - 1), and what being below it earns."""
STEEPEST = 3.0
"""Largest exponent; from there on the penalty rises linearly, so that one bad walk does not drown all others."""
YOUNG, FORGETTING = 200, 0.005
"""Batches whose losses are averaged plainly, and the rate at which later ones replace them."""


class Rewards:
    """Losses and costs -> rewards; remembers how large losses usually are."""

    def __init__(self) -> None:
        self.mean, self.batches = 1.0, 0

    def __call__(self, losses: np.ndarray, over: np.ndarray, bonus: float) -> np.ndarray:
        """(images,) rewards.

        Args:
            losses: (images,) cross-entropies.
            over: (images,) cost ratio minus budget.
            bonus: for every unit below the budget.
        """
        self.batches += 1
        rate = max(1 / self.batches, FORGETTING if self.batches > YOUNG else 0)
        self.mean += rate * (float(losses.mean()) - self.mean)
        rewards: np.ndarray = -losses / max(self.mean, 1e-6) - penalty(over) + bonus * np.maximum(-over, 0)
        return rewards


def penalty(over: np.ndarray) -> np.ndarray:
    """What cost ratios beyond the budget are charged: 0 up to it, then exponential, from STEEPEST on linear."""
    steps = np.maximum(over, 0) / TOLERANCE
    bent = np.minimum(steps, STEEPEST)
    charged: np.ndarray = PENALTY * (np.exp(bent) - 1 + np.exp(STEEPEST) * (steps - bent))
    return charged


class BatchVecEnv(ArrayVecEnv):
    """What environments that are images of a batch have in common: they start together and end together."""

    def __init__(self, images: int, features: int) -> None:
        observations = spaces.Box(-np.inf, np.inf, (features,), np.float32)
        super().__init__(images, observations, spaces.Box(-1, 1, (1,), np.float32))
        self.rewards = Rewards()
        self.told: list[dict[str, float]] = []
        self.labels: Tensor
        self._actions, self._features = np.zeros(images), features

    def step_async(self, actions: np.ndarray) -> None:
        """Remember the (images, 1) actions; ValueError unless they are finite numbers, one an image."""
        self._actions = checked_actions(actions, (self.num_envs, 1), (self.num_envs,))

    def step_wait(self) -> VecEnvStepReturn:
        """Take the remembered actions; ValueError before the first `reset`, which brings the images."""
        if not hasattr(self, "labels"):
            raise ValueError("no episode is under way: call reset() before step()")
        observations = self.advance(self._actions)
        nothing = np.zeros(self.num_envs, dtype=np.float32)
        if observations is not None:
            return observations, nothing, nothing.astype(bool), [{} for _ in range(self.num_envs)]
        rewards = self.finish().astype(np.float32)
        last = np.zeros(self._features, dtype=np.float32)
        infos: list[dict[str, Any]] = [{"terminal_observation": last} for _ in rewards]
        return self.reset(), rewards, np.ones(self.num_envs, dtype=bool), infos

    def advance(self, actions: np.ndarray) -> np.ndarray | None:
        """Decide one layer; the next observations, or None where that was the last."""
        raise NotImplementedError

    def finish(self) -> np.ndarray:
        """(images,) rewards."""
        raise NotImplementedError

    def record(self, losses: np.ndarray, right: np.ndarray, ratios: np.ndarray, rewards: np.ndarray) -> None:
        """Remember how a batch went, for whoever watches."""
        means = (losses.mean(), right.mean(), ratios.mean(), rewards.mean())
        self.told.append(dict(zip(("loss", "accuracy", "macs_ratio", "reward"), map(float, means), strict=True)))


class RuntimeVecEnv(BatchVecEnv):
    """How much of every layer runs for each image; the network stops before every gated layer and asks.

    Observations hold the pooled features and the importance, filled up to the widest layer, the layer as one of all,
    and what `rlprune.gating.controller.Walk` has as context.

    Args:
        gated: the network, in eval mode.
        layout: its shape.
        cost: its cost.
        batches: of images.
        images: in a batch.
        static: (gates,) the static agent's keep ratios.
    """

    def __init__(
        self, gated: GatedNetwork, layout: Layout, cost: Cost, batches: Batches, images: int, static: Tensor
    ) -> None:
        self.gated, self.layout, self.cost, self.batches = gated, layout, cost, batches
        self.static = static
        super().__init__(images, observation_size(layout))
        self._paused = PausedForward()

    def reset(self) -> VecEnvObs:
        """Start a new batch, and run up to the first gate."""
        self.gated.eval()
        images, self.labels, self.budgets = self.batches()
        self._walk = Walk(self.layout, self.budgets)
        asked = self._paused.start(lambda decide: self.gated(images, decide))
        assert asked is not None
        return self._observe(asked)

    def advance(self, actions: np.ndarray) -> np.ndarray | None:
        """Decide the layer that waits, and run up to the next."""
        number = self._number
        keep = self._walk.take(number, actions)
        asked = self._paused.tell(KeepRatios(keep, np.repeat(self.static.numpy()[number], len(keep))))
        return None if asked is None else self._observe(asked)

    def finish(self) -> np.ndarray:
        """(images,) rewards, from what has really run."""
        losses, right = judge(self._paused.result(), self.labels)
        ratios = self.cost.ratios(self.gated.counts())[:, 0]
        rewards = self.rewards(losses, ratios - self.budgets, BONUS)
        self.record(losses, right, ratios, rewards)
        return rewards

    def close(self) -> None:
        """Give up what is under way, and release the thread."""
        self._paused.close()

    def _observe(self, asked: Asked) -> np.ndarray:
        self._number, pooled, importance = asked
        return observe(self.layout, self._number, pooled, importance, self._walk.context())


def observation_size(layout: Layout) -> int:
    """Numbers in an observation of the runtime agent."""
    return max(layout.inputs) + max(layout.channels) + len(layout.inputs) + CONTEXT


def observe(layout: Layout, number: int, pooled: Tensor, importance: Tensor, context: np.ndarray) -> np.ndarray:
    """(images, features) what the runtime agent sees."""
    inputs, channels = max(layout.inputs), max(layout.channels)
    seen = np.zeros((len(pooled), observation_size(layout)), dtype=np.float32)
    seen[:, : pooled.shape[1]] = pooled.cpu().numpy()
    seen[:, inputs : inputs + importance.shape[1]] = importance.cpu().numpy()
    seen[:, inputs + channels + number] = 1
    seen[:, -CONTEXT:] = context
    return seen


def judge(logits: Tensor, labels: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(images,) cross-entropies, and whether the answers are right."""
    losses = CLASSIFICATION.loss(logits.float(), labels, each=True)
    return losses.cpu().double().numpy(), CLASSIFICATION.right(logits, labels).cpu().numpy()


class StaticVecEnv(BatchVecEnv):
    """How much of every layer is stored: an agent that sees no image, judged on a batch of them.

    Observations hold the layer's width relative to the widest, the even keep ratio and which layer it is.

    Args:
        gated: the network, in eval mode.
        layout: its shape.
        cost: its cost.
        batches: of images; all have the same budget.
        images: in a batch; each has a storage of its own.
        decide: the runtime agent; see `rlprune.gating.controller.KeepController`.
    """

    def __init__(
        self, gated: GatedNetwork, layout: Layout, cost: Cost, batches: Batches, images: int, decide: Any
    ) -> None:
        self.gated, self.layout, self.cost, self.batches, self.decide = gated, layout, cost, batches, decide
        widths = np.add(layout.inputs, layout.channels)
        self.widths = widths / widths.max()
        super().__init__(images, 2 + len(widths))

    def reset(self) -> VecEnvObs:
        """Start a new batch at the first layer."""
        self.images, self.labels, budgets = self.batches()
        self.budget = float(budgets[0])
        self.even = float(self.layout.even(self.budget))
        self.keeps: list[np.ndarray] = []
        return self._observe()

    def advance(self, actions: np.ndarray) -> np.ndarray | None:
        """Decide how much of one layer is stored."""
        self.keeps.append(to_keep(np.full(len(actions), self.even), actions))
        return None if len(self.keeps) == len(self.widths) else self._observe()

    def finish(self) -> np.ndarray:
        """(images,) rewards: what runs and what is stored are both charged where they exceed their budgets."""
        self.gated.eval()
        with torch.no_grad():
            logits = self.gated(self.images, self._decided)
        losses, right = judge(logits, self.labels)
        macs = self.cost.ratios(self.gated.counts())[:, 0]
        stored = self.cost.ratios(stored_counts(self.gated, np.array(self.keeps)))[:, 1]
        allowed = self.cost.ratios(stored_counts(self.gated, np.full((len(self.widths), 1), self.even)))[:, 1]
        rewards = self.rewards(losses, macs - self.budget, 0) - penalty(stored - allowed)
        self.record(losses, right, macs, rewards)
        return rewards

    def _decided(self, number: int, pooled: Tensor, importance: Tensor) -> KeepRatios:
        return KeepRatios(self.decide(number, pooled, importance).runtime, self.keeps[number])

    def _observe(self) -> np.ndarray:
        seen = np.zeros((self.num_envs, 2 + len(self.widths)), dtype=np.float32)
        seen[:, 0], seen[:, 1], seen[:, 2 + len(self.keeps)] = self.widths[len(self.keeps)], self.even, 1
        return seen


def stored_counts(gated: GatedNetwork, keeps: np.ndarray) -> np.ndarray:
    """(plans, groups) channels that are stored where the static agent keeps (gates, plans) ratios."""
    found = np.tile(gated.graph.sizes, (keeps.shape[1], 1))
    for wire, keep in zip(gated.wires, keeps, strict=True):
        found[:, wire.group] -= removed_count(keep, wire.stop - wire.start, gated.mix)
    return found
