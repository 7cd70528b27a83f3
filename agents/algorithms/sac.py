"""SAC on the walk (Haarnoja et al., 2018, arXiv 1812.05905)."""

from dataclasses import dataclass
from typing import Any

import stable_baselines3
from stable_baselines3.common.base_class import BaseAlgorithm

from rlprune.agents.algorithms.base import Agent, off_policy


@dataclass(frozen=True)
class SAC(Agent):
    """Soft actor-critic, which keeps its entropy at a target, on the walk.

    Paper: Haarnoja et al., Soft Actor-Critic Algorithms and Applications, 2018, arXiv 1812.05905

    Attributes:
        learning_rate: of actor, critic and temperature.
        gradient_steps: after every step of the walks.
        target_entropy: of the policy.
    """

    learning_rate: float = 1e-3
    gradient_steps: int = 8
    target_entropy: float = -3.0

    def build(self, walks: int, episode: int, common: dict[str, Any]) -> BaseAlgorithm:
        """See `Agent.build`."""
        return stable_baselines3.SAC(
            "MlpPolicy",
            learning_rate=self.learning_rate,
            gradient_steps=self.gradient_steps,
            ent_coef="auto_0.01",
            target_entropy=self.target_entropy,
            **off_policy(walks, episode),
            **common,
        )
