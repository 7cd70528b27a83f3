"""The Gymnasium environment: one walk over a network's groups an episode."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from rlprune.envs.checks import checked_actions, checked_losses
from rlprune.envs.episode import BatchedEpisodes, EpisodeSpec, Score
from rlprune.envs.observation import BOUND
from rlprune.envs.render import episode_table
from rlprune.plans.plan import PruningPlan


class ChannelPruningEnv(gym.Env[np.ndarray, np.ndarray]):
    """Decide every group's keep ratio, and maybe which blocks stay; the reward comes at the end, from the plan's score.

    `rlprune.make_env` makes one of a network, images and a budget.

    Args:
        spec: what is walked and what counts.
        score: (plans, groups + columns) plans -> (plans,) losses.
        render_mode: ``"ansi"``, so that `render` returns a table as text, or None.
        plan_of: such a plan -> its channels, for `plan`.

    Raises:
        ValueError: another render mode.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 4}  # noqa: RUF012

    def __init__(
        self,
        spec: EpisodeSpec,
        score: Score,
        render_mode: str | None = None,
        plan_of: Callable[[np.ndarray], PruningPlan] | None = None,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode is {render_mode!r}: expected 'ansi' or None")
        self.walk = BatchedEpisodes(spec, 1)
        self.score, self.render_mode, self.plan_of = score, render_mode, plan_of
        self.observation_space = observation_space(spec)
        self.action_space = action_space()
        self._begun = False
        self._finished: np.ndarray | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start at the first group."""
        super().reset(seed=seed)
        self._begun = True
        return self.walk.reset()[0], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take one step, such as to decide a group; `info` of the last step holds the plan's `counts` and its `loss`.

        Behind the `counts` stands what decisions have put into columns of their own, such as a criterion a group.

        Args:
            action: (1,) in [-1, 1]; what is beyond counts as the nearer end.

        Raises:
            ValueError: not one finite number, no episode under way, or a score that is not one finite loss.
        """
        if not self._begun:
            raise ValueError("no episode is under way: call reset() before step()")
        finished = self.walk.step(checked_actions(action, (1,)))
        reward, info = 0.0, {}
        if finished:
            plans = self.walk.plans
            losses = checked_losses(self.score(plans.copy()), 1)
            reward = float(self.walk.spec.reward(plans, losses)[0])
            self._finished = plans[0].copy()
            info = {"counts": plans[0].copy(), "loss": float(losses[0])}
        return self.walk.observe()[0], reward, finished, False, info

    def render(self) -> str | None:  # type: ignore[override]
        """With the render mode ``"ansi"`` the episode so far as a table; otherwise None."""
        if self.render_mode is None:
            return None
        return episode_table(self.walk.spec, self.walk.counts[0], self.walk.group)

    def plan(self) -> PruningPlan:
        """The plan of the last finished episode: which channels stay, to save, to cut by and to load again.

        Raises:
            ValueError: no episode has finished yet, or nobody said how to make a plan of counts.
        """
        if self.plan_of is None:
            raise ValueError("counts alone are no plan: make the environment by rlprune.make_env, or give plan_of")
        if self._finished is None:
            raise ValueError("no episode has finished yet: a plan is what the last step of one decides")
        return self.plan_of(self._finished)


def observation_space(spec: EpisodeSpec) -> spaces.Box:
    """The box of observations; see `rlprune.envs.observation`."""
    return spaces.Box(-BOUND, BOUND, (spec.features.size,), np.float32)


def action_space() -> spaces.Box:
    """One residual in [-1, 1]."""
    return spaces.Box(-1.0, 1.0, (1,), np.float32)
