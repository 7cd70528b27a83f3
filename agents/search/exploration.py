"""How far an agent looks around: as far as in the beginning wherever plans come to be worth something else, and never
so little that nothing new turns up."""

import math
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn

FLOOR = 0.08
"""Deviation of PPO's actions below which no round begins."""
LOG_STD = -1.2
"""Logarithm of the deviation of SAC's actions, before they are squashed, in the beginning."""


def explore(learner: BaseAlgorithm) -> None:
    """Look around as far as in the beginning, for another fidelity, budget or cost has other good plans.

    What the optimizers' momentum knows is of the old score: kept, it would narrow PPO's policy again in a few steps.
    DDPG and TD3 explore by noise that never changes; there is nothing to do.
    """
    policy: Any = learner.policy
    with torch.no_grad():
        if _has_deviation(policy):
            policy.log_std.fill_(policy.log_std_init)
            policy.optimizer.state.clear()
        elif isinstance(getattr(getattr(policy, "actor", None), "log_std", None), nn.Linear):
            widen(policy.actor)
            _reset_temperature(learner)


def keep_exploring(learner: BaseAlgorithm) -> None:
    """Before a round: PPO's deviation is `FLOOR` at least.

    It narrows for a forecast that is another one in every round, and nothing pays for widening again. SAC holds its
    entropy at a target by itself, DDPG and TD3 their noise.
    """
    policy: Any = learner.policy
    if _has_deviation(policy) and bool((policy.log_std < math.log(FLOOR)).any()):
        with torch.no_grad():
            policy.log_std.clamp_(min=math.log(FLOOR))
        policy.optimizer.state.pop(policy.log_std, None)


def widen(actor: nn.Module) -> None:
    """Give an actor whose deviation depends on what it sees, SAC's, the same one everywhere."""
    head: Any = actor.log_std
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(LOG_STD)


def _has_deviation(policy: Any) -> bool:
    """Whether it has one of its own for all observations, as PPO's."""
    return isinstance(getattr(policy, "log_std", None), nn.Parameter)


def _reset_temperature(learner: Any) -> None:
    """What entropy is worth, where it is learnt: in the beginning, the number after `auto_`."""
    if getattr(learner, "ent_coef_optimizer", None) is None:
        return
    first = float(str(learner.ent_coef).partition("_")[2] or 1)
    with torch.no_grad():
        learner.log_ent_coef.fill_(math.log(first))
    learner.ent_coef_optimizer.state.clear()
