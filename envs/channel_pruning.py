"""The Gymnasium environment: one walk over a network's groups an episode."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from rlprune.envs.episode import BatchedEpisodes, EpisodeSpec, Score
from rlprune.envs.observation import BOUND


class ChannelPruningEnv(gym.Env[np.ndarray, np.ndarray]):
    """Decide every group's keep ratio; the reward comes at the end, from the score of the finished plan.

    Args:
        spec: what is walked and what counts.
        score: (plans, groups) kept counts -> (plans,) losses.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, spec: EpisodeSpec, score: Score) -> None:
        self.walk = BatchedEpisodes(spec, 1)
        self.score = score
        self.observation_space = observation_space(spec)
        self.action_space = action_space()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start at the first group."""
        super().reset(seed=seed)
        return self.walk.reset()[0], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Decide one group; `info` of the last step holds the plan's `counts` and its `loss`."""
        finished = self.walk.step(np.asarray(action, dtype=float).reshape(1))
        reward, info = 0.0, {}
        if finished:
            losses = self.score(self.walk.counts)
            reward = float(self.walk.spec.reward(self.walk.counts, losses)[0])
            info = {"counts": self.walk.counts[0].copy(), "loss": float(losses[0])}
        return self.walk.observe()[0], reward, finished, False, info


def observation_space(spec: EpisodeSpec) -> spaces.Box:
    """The box of observations; see `rlprune.envs.observation`."""
    return spaces.Box(-BOUND, BOUND, (spec.features.size,), np.float32)


def action_space() -> spaces.Box:
    """One residual in [-1, 1]."""
    return spaces.Box(-1.0, 1.0, (1,), np.float32)
