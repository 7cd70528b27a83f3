"""DDPG on the walk (Lillicrap et al., 2016, arXiv 1509.02971)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm

from rlprune.agents.algorithms.base import Agent, off_policy


@dataclass(frozen=True)
class DDPG(Agent):
    """Deep deterministic policy gradient, the algorithm of AMC, on the walk.

    Paper: Lillicrap et al., Continuous Control with Deep Reinforcement Learning, 2016, arXiv 1509.02971

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

        return stable_baselines3.DDPG(
            "MlpPolicy",
            learning_rate=self.learning_rate,
            gradient_steps=self.gradient_steps,
            action_noise=VectorizedActionNoise(NormalActionNoise(np.zeros(1), np.full(1, self.noise)), walks),
            **off_policy(walks, episode),
            **common,
        )
