"""A policy's walks outside of its training."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from rlprune.envs.episode import BatchedEpisodes, EpisodeSpec

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

Choose = Callable[[np.ndarray], np.ndarray]
"""(walks, features) observations -> (walks,) actions."""


def rollout(choose: Choose, spec: EpisodeSpec, walks: int) -> tuple[np.ndarray, np.ndarray]:
    """Walk side by side.

    Args:
        choose: what to do.
        spec: what is walked.
        walks: how many.

    Returns:
        (steps, walks) actions and the (walks, groups + columns) plans that they end in.
    """
    side_by_side = BatchedEpisodes(spec, walks)
    actions, finished = [], False
    while not finished:
        actions.append(np.clip(choose(side_by_side.observe()), -1, 1))
        finished = side_by_side.step(actions[-1])
    return np.array(actions), side_by_side.plans


def greedy(agent: "BaseAlgorithm") -> Choose:
    """What an agent does when it does not explore."""
    return lambda observations: np.asarray(agent.predict(observations, deterministic=True)[0]).reshape(-1)
