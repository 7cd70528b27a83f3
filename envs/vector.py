"""The same environment many times over, stepped as one array, for Stable-Baselines3."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from rlprune.envs.arrays import ArrayVecEnv
from rlprune.envs.channel_pruning import action_space, observation_space
from rlprune.envs.walk import Score, Task, Walks


class WalkVecEnv(ArrayVecEnv):
    """Walks that start together; a finished walk starts again by itself, as is the rule for such environments.

    Args:
        tasks: what is walked and what counts: several budgets, networks of several lengths.
        scores: for every task (plans, groups) kept counts -> (plans,) losses.
        number: how many walks of every task go at once.
    """

    def __init__(self, tasks: Sequence[Task], scores: Sequence[Score], number: int) -> None:
        super().__init__(number * len(tasks), observation_space(tasks[0]), action_space())
        self.walks = [Walks(task, number) for task in tasks]
        self.scores = scores
        self._actions = np.zeros(self.num_envs)

    def reset(self) -> VecEnvObs:
        """Start all walks at the first group."""
        return np.concatenate([walks.reset() for walks in self.walks])

    def step_async(self, actions: np.ndarray) -> None:
        """Remember the (walks, 1) actions."""
        self._actions = np.asarray(actions, dtype=float).reshape(-1)

    def step_wait(self) -> VecEnvStepReturn:
        """Take the remembered actions."""
        parts = zip(self.walks, self.scores, np.split(self._actions, len(self.walks)), strict=True)
        observations, rewards, dones, infos = zip(*(_advance(*part) for part in parts), strict=True)
        together = [np.concatenate(arrays) for arrays in (observations, rewards, dones)]
        return together[0], together[1], together[2], [info for part in infos for info in part]


def _advance(
    walks: Walks, score: Score, actions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
    """One step of the walks of one task: observations, rewards, whether they have finished, and what else is told."""
    finished = walks.step(actions)
    observations, dones = walks.observe(), np.full(walks.number, finished)
    if not finished:
        return observations, np.zeros(walks.number, dtype=np.float32), dones, [{} for _ in range(walks.number)]
    rewards = walks.task.reward(walks.counts, score(walks.counts)).astype(np.float32)
    infos: list[dict[str, Any]] = [
        {"terminal_observation": observation, "episode": {"r": float(reward), "l": walks.groups, "t": 0.0}}
        for observation, reward in zip(observations, rewards, strict=True)
    ]
    return walks.reset(), rewards, dones, infos
