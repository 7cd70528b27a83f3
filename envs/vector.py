"""The same environment many times over, stepped as one array, for Stable-Baselines3."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvObs, VecEnvStepReturn

from rlprune.envs.channel_pruning import action_space, observation_space
from rlprune.envs.checks import checked_actions, checked_losses
from rlprune.envs.episode import BatchedEpisodes, EpisodeSpec, Score


class ArrayVecEnv(VecEnv):
    """Environments that share everything but a row of every array."""

    def close(self) -> None:
        """Nothing to release."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The same value for every environment."""
        value = getattr(self, attr_name, None) if attr_name != "render_mode" else None
        return [value] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not supported: all share what they act on."""
        raise AttributeError(f"'{attr_name}' cannot be set on single environments: they share what they act on")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Not supported: they are arrays, not objects."""
        raise AttributeError(f"'{method_name}' cannot be called on single environments: they are arrays")

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """Never wrapped one by one."""
        return [False] * len(list(self._get_indices(indices)))


class WalkVecEnv(ArrayVecEnv):
    """Walks that start together; a finished walk starts again by itself, as is the rule for such environments.

    Args:
        specs: what is walked and what counts: several budgets, networks of several lengths.
        scores: for each of them (plans, groups + columns) plans -> (plans,) losses.
        number: how many walks of each go at once.
    """

    def __init__(self, specs: Sequence[EpisodeSpec], scores: Sequence[Score], number: int) -> None:
        super().__init__(number * len(specs), observation_space(specs[0]), action_space())
        self.walks = [BatchedEpisodes(spec, number) for spec in specs]
        self.scores = scores
        self._actions = np.zeros(self.num_envs)

    def reset(self) -> VecEnvObs:
        """Start all walks at the first group."""
        return np.concatenate([walks.reset() for walks in self.walks])

    def step_async(self, actions: np.ndarray) -> None:
        """Remember the (walks, 1) actions; ValueError unless they are finite numbers, one a walk."""
        self._actions = checked_actions(actions, (self.num_envs, 1), (self.num_envs,))

    def step_wait(self) -> VecEnvStepReturn:
        """Take the remembered actions."""
        parts = zip(self.walks, self.scores, np.split(self._actions, len(self.walks)), strict=True)
        observations, rewards, dones, infos = zip(*(_advance(*part) for part in parts), strict=True)
        together = [np.concatenate(arrays) for arrays in (observations, rewards, dones)]
        return together[0], together[1], together[2], [info for part in infos for info in part]


def _advance(
    walks: BatchedEpisodes, score: Score, actions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
    """One step of the walks of one spec: observations, rewards, whether they have finished, and what else is told."""
    finished = walks.step(actions)
    observations, dones = walks.observe(), np.full(walks.number, finished)
    if not finished:
        return observations, np.zeros(walks.number, dtype=np.float32), dones, [{} for _ in range(walks.number)]
    plans = walks.plans
    losses = checked_losses(score(plans), walks.number)
    rewards = walks.spec.reward(plans, losses).astype(np.float32)
    infos: list[dict[str, Any]] = [
        {
            "terminal_observation": observation,
            "counts": plan,
            "episode": {"r": float(reward), "l": walks.length, "t": 0.0},
        }
        for observation, plan, reward in zip(observations, plans.copy(), rewards, strict=True)
    ]
    return walks.reset(), rewards, dones, infos
