"""PPO on the walk (Schulman et al., 2017, arXiv 1707.06347)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import stable_baselines3
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn

from rlprune.agents.algorithms.base import Agent


@dataclass(frozen=True)
class PPO(Agent):
    """Proximal policy optimisation over walks that a surrogate scores: the agent of `rlprune search` by default.

    Paper: Schulman et al., Proximal Policy Optimization Algorithms, 2017, arXiv 1707.06347

    Attributes:
        learning_rate: of policy and value function.
        epochs: passes over the walks of a rollout.
        clip_range: how far a step may change the probability of an action.
        log_std: logarithm of the first policy's standard deviation.
    """

    algorithm: ClassVar[type[stable_baselines3.PPO]] = stable_baselines3.PPO

    learning_rate: float = 3e-3
    epochs: int = 4
    clip_range: float = 0.2
    log_std: float = -1.8

    def build(self, walks: int, episode: int, common: dict[str, Any]) -> BaseAlgorithm:
        """See `Agent.build`."""
        return self.algorithm(
            "MlpPolicy",
            n_steps=episode,
            batch_size=walks * episode // (4 if walks % 4 == 0 else 1),
            n_epochs=self.epochs,
            learning_rate=self.learning_rate,
            gae_lambda=1.0,
            clip_range=self.clip_range,
            policy_kwargs={"net_arch": [64, 64], "activation_fn": nn.ReLU, "log_std_init": self.log_std},
            **common,
        )
