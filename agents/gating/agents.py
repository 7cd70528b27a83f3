"""The two agents of runtime pruning as Stable-Baselines3 agents (Chen, Chen & Pan, NeurIPS 2020)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from rlprune.agents.algorithms.base import start_at_zero
from rlprune.errors import UserError
from rlprune.gating.layout import Layout
from rlprune.gating.policy import CONTEXT, ENCODED, KeepPolicy

NOISE = -2.5
"""Logarithm of the first policies' standard deviation."""


class LayerEncoder(BaseFeaturesExtractor):
    """An encoder of its own for every layer, as `KeepPolicy` has them; observations say which layer it is.

    Args:
        observation_space: of `rlprune.envs.gating.RuntimeVecEnv`.
        layout: of the network.
    """

    def __init__(self, observation_space: spaces.Space[Any], layout: Layout) -> None:
        super().__init__(observation_space, ENCODED + CONTEXT)
        self.layout, self.places = layout, (max(layout.inputs), max(layout.inputs) + max(layout.channels))
        self.policy = KeepPolicy(layout.inputs, layout.channels)
        # Only the encoders are used here; the rest of the policy is Stable-Baselines3's.
        self.policy.hidden.requires_grad_(False)
        self.policy.head.requires_grad_(False)

    def forward(self, observations: Tensor) -> Tensor:
        """(observations, ENCODED + CONTEXT)."""
        first, second = self.places
        context = observations[:, -CONTEXT:]
        numbers = observations[:, second:-CONTEXT].argmax(1)
        found = torch.zeros(len(observations), self.features_dim, device=observations.device)
        for number in numbers.unique().tolist():
            rows = numbers == number
            pooled = observations[rows, : self.layout.inputs[number]]
            importance = observations[rows, first : first + self.layout.channels[number]]
            found[rows] = self.policy.encode(number, pooled, importance, context[rows])
        return found


def make_runtime_agent(
    env: VecEnv, layout: Layout, seed: int, log: Path | None = None, recurrent: bool = False
) -> BaseAlgorithm:
    """The agent that decides image by image; its first policy keeps the even ratio everywhere, with a little noise.

    Args:
        env: a `rlprune.envs.gating.RuntimeVecEnv`.
        layout: of the network.
        seed: of its weights and draws.
        log: folder of its TensorBoard files.
        recurrent: whether an LSTM in its policy and another in its value function remember the layers before.

    Raises:
        UserError: it is recurrent and sb3-contrib is missing.
    """
    policy: dict[str, Any] = {"features_extractor_class": LayerEncoder, "features_extractor_kwargs": {"layout": layout}}
    if recurrent:
        policy |= {"lstm_hidden_size": ENCODED, "net_arch": {"pi": [], "vf": [2 * ENCODED]}}
        return _ppo(_recurrent_ppo(), "MlpLstmPolicy", env, len(layout.inputs), seed, log, policy)
    policy["net_arch"] = {"pi": [ENCODED], "vf": [2 * ENCODED]}
    return _ppo(PPO, "MlpPolicy", env, len(layout.inputs), seed, log, policy)


def make_static_agent(env: VecEnv, layers: int, seed: int, log: Path | None = None) -> BaseAlgorithm:
    """The agent that decides what is stored; arguments as above."""
    return _ppo(PPO, "MlpPolicy", env, layers, seed, log, {"net_arch": [2 * ENCODED]})


def require_recurrent() -> None:
    """Raise UserError if there is no recurrent agent here."""
    _recurrent_ppo()


def _recurrent_ppo() -> type[BaseAlgorithm]:
    try:
        from sb3_contrib import RecurrentPPO
    except ImportError:
        raise UserError("--agent recurrent-ppo needs sb3-contrib: pip install 'rlprune[recurrent]'") from None
    found: type[BaseAlgorithm] = RecurrentPPO
    return found


def _ppo(
    kind: Any, network: str, env: VecEnv, episode: int, seed: int, log: Path | None, policy: dict[str, Any]
) -> BaseAlgorithm:
    agent: BaseAlgorithm = kind(
        network,
        env,
        seed=seed,
        device="cpu",
        n_steps=episode,
        batch_size=max(2, env.num_envs * episode // 4),
        n_epochs=4,
        learning_rate=1e-3,
        gamma=1.0,
        gae_lambda=0.95,
        tensorboard_log=None if log is None else str(log),
        policy_kwargs={"activation_fn": nn.Tanh, "log_std_init": NOISE, **policy},
    )
    start_at_zero(agent)
    return agent


def transfer(agent: BaseAlgorithm, policy: KeepPolicy) -> None:
    """Give a deployed policy what the agent has learnt."""
    source: Any = agent.policy
    middle = source.lstm_actor if policy.recurrent else source.mlp_extractor.policy_net[0]
    # An LSTM numbers its layers; a cell is one of them.
    learnt = {name.removesuffix("_l0"): tensor for name, tensor in middle.state_dict().items()}
    policy.hidden.load_state_dict(learnt)
    policy.encoders.load_state_dict(source.features_extractor.policy.encoders.state_dict())
    policy.head.load_state_dict(source.action_net.state_dict())


def static_plan(agent: BaseAlgorithm, env: Any) -> Tensor:
    """(gates,) keep ratios that the static agent has settled on."""
    observations = env.reset()
    while observations is not None:
        actions, _ = agent.predict(observations, deterministic=True)
        observations = env.advance(actions.reshape(-1).astype(float))
    return torch.from_numpy(np.array(env.keeps)[:, 0])
