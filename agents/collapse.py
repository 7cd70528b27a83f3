"""Whether an agent has collapsed: its policy has become a constant, so that nothing more can come from it."""

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm

from rlprune.agents.rollout import Choose, greedy, rollout
from rlprune.envs.walk import Task

WALKS = 32
NEAR = 0.01
"""Fraction of the range of actions within which an action counts as one at the bound."""


def collapse(agent: BaseAlgorithm, task: Task) -> str:
    """A remark if a trained agent has collapsed, or an empty text."""
    actions, _ = rollout(greedy(agent), task, 1)
    return at_one_bound(actions, -1.0, 1.0) or one_plan(rollout(_exploring(agent), task, WALKS)[1])


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
