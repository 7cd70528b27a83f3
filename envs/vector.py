"""The same environment many times over, stepped as one array, for Stable-Baselines3."""

from collections.abc import Callable
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvObs, VecEnvStepReturn

from rlprune.envs.channel_pruning import action_space, observation_space
from rlprune.envs.walk import Score, Task, Walks


class WalkVecEnv(VecEnv):
    """Walks that all finish together; a finished walk starts again by itself, as is the rule for such environments.

    Args:
        task: what is walked and what counts.
        score: (plans, groups) kept counts -> (plans,) losses.
        number: how many walks go at once.
        on_finish: told the (walks, groups) counts and (walks,) losses of finished walks.
    """

    def __init__(
        self, task: Task, score: Score, number: int, on_finish: Callable[[np.ndarray, np.ndarray], None] | None = None
    ) -> None:
        super().__init__(number, observation_space(task), action_space())
        self.walks = Walks(task, number)
        self.score = score
        self.on_finish = on_finish
        self._actions = np.zeros(number)

    def reset(self) -> VecEnvObs:
        """Start all walks at the first group."""
        return self.walks.reset()

    def step_async(self, actions: np.ndarray) -> None:
        """Remember the (walks, 1) actions."""
        self._actions = np.asarray(actions, dtype=float).reshape(-1)

    def step_wait(self) -> VecEnvStepReturn:
        """Take the remembered actions."""
        finished = self.walks.step(self._actions)
        rewards = np.zeros(self.num_envs, dtype=np.float32)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if not finished:
            return self.walks.observe(), rewards, np.zeros(self.num_envs, dtype=bool), infos
        counts = self.walks.counts
        losses = self.score(counts)
        rewards[:] = self.walks.task.reward(counts, losses)
        if self.on_finish:
            self.on_finish(counts, losses)
        terminal = self.walks.observe()
        for info, observation, reward in zip(infos, terminal, rewards, strict=True):
            info["terminal_observation"] = observation
            info["episode"] = {"r": float(reward), "l": self.walks.groups, "t": 0.0}
        return self.walks.reset(), rewards, np.ones(self.num_envs, dtype=bool), infos

    def close(self) -> None:
        """Nothing to release."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The same value for every walk."""
        value = getattr(self, attr_name, None) if attr_name != "render_mode" else None
        return [value] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not supported: all walks share one task."""
        raise AttributeError(f"'{attr_name}' cannot be set on single walks: they share one task")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Not supported: the walks are arrays, not objects."""
        raise AttributeError(f"'{method_name}' cannot be called on single walks: they are arrays")

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """Never wrapped one by one."""
        return [False] * len(list(self._get_indices(indices)))
