"""TD3 on the walk (Fujimoto et al., 2018, arXiv 1802.09477)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm

from rlprune.agents.algorithms.base import Agent, off_policy


@dataclass(frozen=True)
class TD3(Agent):
    """Twin delayed deterministic policy gradient on the walk.

    Paper: Fujimoto et al., Addressing Function Approximation Error in Actor-Critic Methods, 2018, arXiv 1802.09477

    Attributes:
        learning_rate: of actor and critic.
        gradient_steps: after every step of the walks.
        noise: standard deviation of the noise on the actions.
    """

    learning_rate: float = 1e-3
    gradient_steps: int = 8
    noise: float = 0.2

    def build(self, walks: int, episode: int, common: dict[str, Any]) -> BaseAlgorithm:
        """See `Agent.build`."""
        import stable_baselines3
        from stable_baselines3.common.noise import NormalActionNoise, VectorizedActionNoise

        return stable_baselines3.TD3(
            "MlpPolicy",
            learning_rate=self.learning_rate,
            gradient_steps=self.gradient_steps,
            action_noise=VectorizedActionNoise(NormalActionNoise(np.zeros(1), np.full(1, self.noise)), walks),
            **off_policy(walks, episode),
            **common,
        )
