"""The four Stable-Baselines3 agents, all started on the base plan."""

from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from rlprune.errors import unknown
from rlprune.settings import AGENTS


def make_agent(name: str, env: VecEnv, episode: int, seed: int) -> BaseAlgorithm:
    """Build an agent whose first policy is the base plan itself, with a little noise around it.

    Args:
        name: one of `AGENTS`.
        env: walks that finish together.
        episode: steps of a walk.
        seed: for the agent's weights and draws.

    Raises:
        UserError: unknown agent.
    """
    if name not in AGENTS:
        raise unknown("agent", name, AGENTS)
    common: dict[str, Any] = {"env": env, "seed": seed, "device": "cpu", "gamma": 1.0, "verbose": 0}
    agent = _ppo(common, episode) if name == "ppo" else _off_policy(name, common, episode)
    start_at_zero(agent)
    return agent


def _ppo(common: dict[str, Any], episode: int) -> BaseAlgorithm:
    from stable_baselines3 import PPO

    walks = common["env"].num_envs
    return PPO(
        "MlpPolicy",
        n_steps=episode,
        batch_size=walks * episode // (4 if walks % 4 == 0 else 1),
        n_epochs=4,
        learning_rate=3e-3,
        gae_lambda=1.0,
        clip_range=0.2,
        policy_kwargs={"net_arch": [64, 64], "activation_fn": nn.ReLU, "log_std_init": -1.8},
        **common,
    )


def _off_policy(name: str, common: dict[str, Any], episode: int) -> BaseAlgorithm:
    import numpy as np
    from stable_baselines3 import DDPG, SAC, TD3
    from stable_baselines3.common.noise import NormalActionNoise, VectorizedActionNoise

    walks = common["env"].num_envs
    settings = {
        "learning_rate": 1e-3,
        "batch_size": 256,
        "buffer_size": 200_000,
        "learning_starts": walks * episode,
        "train_freq": (1, "step"),
        "gradient_steps": 8,
        # The reward comes at the end: returns over the whole episode need no critic to carry it back step by step.
        "n_steps": episode,
        "policy_kwargs": {"net_arch": [64, 64]},
        **common,
    }
    if name == "sac":
        return SAC("MlpPolicy", ent_coef="auto_0.01", target_entropy=-3.0, **settings)
    noise = VectorizedActionNoise(NormalActionNoise(np.zeros(1), np.full(1, 0.2)), walks)
    return {"ddpg": DDPG, "td3": TD3}[name]("MlpPolicy", action_noise=noise, **settings)


def start_at_zero(agent: BaseAlgorithm) -> None:
    """Shrink the last layer of the policy's mean, so that the first walks stay near the base plan."""
    policy: Any = agent.policy
    if hasattr(policy, "action_net"):
        head = policy.action_net
    elif hasattr(policy.actor, "mu") and isinstance(policy.actor.mu, nn.Linear):
        head = policy.actor.mu
    else:
        head = [layer for layer in policy.actor.mu if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():
        head.weight.mul_(0.01)
        head.bias.zero_()
        if hasattr(policy, "actor_target"):
            policy.actor_target.load_state_dict(policy.actor.state_dict())
        if hasattr(policy, "actor") and hasattr(policy.actor, "log_std"):
            policy.actor.log_std.weight.mul_(0.01)
            policy.actor.log_std.bias.fill_(-1.2)
