"""Whether an agent has collapsed: its policy has become a constant, so that nothing more can come from it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from stable_baselines3.common.base_class import BaseAlgorithm

from rlprune.agents.rollout import Choose, greedy, rollout
from rlprune.envs.episode import EpisodeSpec

WALKS = 32
NEAR = 0.01
"""Fraction of the range of actions within which an action counts as one at the bound."""


def collapse(agent: BaseAlgorithm, spec: EpisodeSpec) -> str:
    """A remark if a trained agent has collapsed, or an empty text."""
    actions, _ = rollout(greedy(agent), spec, 1)
    return at_one_bound(actions, -1.0, 1.0) or one_plan(rollout(_exploring(agent), spec, WALKS)[1])


def at_one_bound(actions: np.ndarray, low: float, high: float) -> str:
    """A remark if all actions of a walk without exploration are at the same one of their bounds.

    Args:
        actions: any shape.
        low, high: their bounds.
    """
    for name, bound in (("lower", low), ("upper", high)):
        if (np.abs(actions - bound) <= NEAR * (high - low)).all():
            return f"the policy collapsed: every action is at the {name} bound"
    return ""


def one_plan(plans: np.ndarray) -> str:
    """A remark if (walks, groups) plans of several walks with exploration are all the same."""
    same = len(plans) > 1 and (plans == plans[0]).all()
    return "the policy collapsed: all walks end in one plan" if same else ""


def _exploring(agent: BaseAlgorithm) -> Choose:
    noise = getattr(agent, "action_noise", None)

    def choose(observations: np.ndarray) -> np.ndarray:
        chosen = np.asarray(agent.predict(observations)[0]).reshape(-1)
        # Noise is drawn for as many walks as the agent trained on.
        return chosen if noise is None else chosen + np.resize(noise(), len(chosen))

    return choose


SHIFTS = 32
"""Long walks are shifted by so many distances, evenly spread."""


def reactions(agent: BaseAlgorithm, specs: Sequence[EpisodeSpec]) -> pd.DataFrame:
    """The observations of a trained agent, the one that it reacts to most first.

    What never changes on its walks, as a fixed budget, moves nothing. Observations that go together share their effect.

    Args:
        agent: walks one episode of every spec, without exploring.
        specs: of one network, such as one a budget.

    Returns:
        columns observation and change, the mean absolute change of the action, which lies within [-1, 1].
    """
    choose = greedy(agent)
    changes = mean_changes(choose, np.concatenate([_walk(choose, spec) for spec in specs]))
    table = pd.DataFrame({"observation": specs[0].features.names, "change": changes})
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


def _walk(choose: Choose, spec: EpisodeSpec) -> np.ndarray:
    """(steps, features) what is seen on one walk."""
    seen: list[np.ndarray] = []

    def watched(observations: np.ndarray) -> np.ndarray:
        seen.append(observations[0])
        return choose(observations)

    rollout(watched, spec, 1)
    return np.array(seen)


def _within(actions: np.ndarray) -> np.ndarray:
    return np.clip(actions, -1, 1)
