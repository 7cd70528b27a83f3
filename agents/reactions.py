"""What a policy reacts to: how much its action changes where an observation is taken from elsewhere on its walk.

This is permutation importance (Breiman, 2001; Fisher et al., 2019, arXiv 1801.01489) of the action itself, with shifts
of the walk in the place of random permutations: all of them together pair every step with every other.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from stable_baselines3.common.base_class import BaseAlgorithm

from rlprune.agents.rollout import Choose, greedy, rollout
from rlprune.envs.walk import Task

SHIFTS = 32
"""Long walks are shifted by so many distances, evenly spread."""


def reactions(agent: BaseAlgorithm, tasks: Sequence[Task]) -> pd.DataFrame:
    """The observations of a trained agent, the one that it reacts to most first.

    What never changes on its walks, as a fixed budget, moves nothing. Observations that go together share their effect.

    Args:
        agent: walks every task once, without exploring.
        tasks: of one network, such as one a budget.

    Returns:
        columns observation and change, the mean absolute change of the action, which lies within [-1, 1].
    """
    choose = greedy(agent)
    changes = mean_changes(choose, np.concatenate([_walk(choose, task) for task in tasks]))
    table = pd.DataFrame({"observation": tasks[0].features.names, "change": changes})
    return table.sort_values("change", ascending=False, kind="stable", ignore_index=True)


def mean_changes(choose: Choose, seen: np.ndarray) -> np.ndarray:
    """(features,) mean absolute change of the action over pairs of the (steps, features) observations."""
    usual, changes = _within(choose(seen)), np.zeros(seen.shape[1])
    distances = np.arange(1, len(seen))
    shifts = distances[np.linspace(0, len(distances) - 1, min(SHIFTS, len(distances))).astype(int)]
    for shift in shifts:
        elsewhere = np.roll(seen, shift, axis=0)
        for feature in np.flatnonzero((elsewhere != seen).any(axis=0)):
            mixed = seen.copy()
            mixed[:, feature] = elsewhere[:, feature]
            changes[feature] += np.abs(_within(choose(mixed)) - usual).mean()
    return changes / max(len(shifts), 1)


def _walk(choose: Choose, task: Task) -> np.ndarray:
    """(steps, features) what is seen on one walk."""
    seen: list[np.ndarray] = []

    def watched(observations: np.ndarray) -> np.ndarray:
        seen.append(observations[0])
        return choose(observations)

    rollout(watched, task, 1)
    return np.array(seen)


def _within(actions: np.ndarray) -> np.ndarray:
    return np.clip(actions, -1, 1)
