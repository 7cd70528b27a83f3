"""Self-imitation (Oh et al., 2018, arXiv 1806.05635): the policy is drawn to the best plans that were measured.

What a plan asks for at every step of a walk follows from the plan, so that an agent can be taught any plan, also one
that it met only by chance; it then explores around it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.sac.policies import SACPolicy
from torch import Tensor
from torch.nn.functional import mse_loss

from rlprune.envs.episode import EpisodeSpec, retrace

STEPS = 50
RATE = 3e-3


def imitate(agent: BaseAlgorithm, lessons: Sequence[tuple[EpisodeSpec, np.ndarray]]) -> None:
    """Pull an agent's policy towards plans.

    Args:
        agent: one of `rlprune.agents.factory`.
        lessons: specs, and the (plans, groups) kept counts to be learnt in each.
    """
    walks = [retrace(spec, plans) for spec, plans in lessons]
    observations = torch.as_tensor(np.concatenate([seen.reshape(-1, seen.shape[-1]) for seen, _ in walks]))
    actions = torch.as_tensor(np.concatenate([taken.reshape(-1, 1) for _, taken in walks]), dtype=torch.float32)
    optimizer = torch.optim.Adam([each for name, each in agent.policy.named_parameters() if "critic" not in name], RATE)
    for _ in range(STEPS):
        optimizer.zero_grad()
        mse_loss(policy_mean(agent, observations), actions).backward()
        optimizer.step()


def policy_mean(agent: BaseAlgorithm, observations: Tensor) -> Tensor:
    """(observations, 1) what the policy does without exploring, differentiable."""
    policy = agent.policy
    if isinstance(policy, ActorCriticPolicy):
        mean: Tensor = policy.get_distribution(observations).distribution.mean  # type: ignore[union-attr]
        return mean
    if isinstance(policy, SACPolicy):
        return torch.tanh(policy.actor.get_action_dist_params(observations)[0])
    actor: Tensor = policy.actor(observations)  # type: ignore[union-attr,operator]
    return actor
