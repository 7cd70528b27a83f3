"""Whether an agent has collapsed: its policy has become a constant, so that nothing more can come from it."""

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm

from rlprune.envs.walk import Task, Walks

WALKS = 32
NEAR = 0.01
"""Fraction of the range of actions within which an action counts as one at the bound."""


def collapse(agent: BaseAlgorithm, task: Task) -> str:
    """A remark if a trained agent has collapsed, or an empty text."""
    actions, _ = _walked(agent, task, explore=False)
    return at_one_bound(actions, -1.0, 1.0) or one_plan(_walked(agent, task, explore=True)[1])


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


def _walked(agent: BaseAlgorithm, task: Task, explore: bool) -> tuple[np.ndarray, np.ndarray]:
    """(steps, walks) actions and (walks, groups) kept counts."""
    walks = Walks(task, WALKS if explore else 1)
    noise = getattr(agent, "action_noise", None) if explore else None
    actions, finished = [], False
    while not finished:
        chosen = np.asarray(agent.predict(walks.observe(), deterministic=not explore)[0]).reshape(-1)
        if noise is not None:
            # Drawn for as many walks as the agent trained on.
            chosen = chosen + np.resize(noise(), len(chosen))
        actions.append(np.clip(chosen, -1, 1))
        finished = walks.step(actions[-1])
    return np.array(actions), walks.counts
