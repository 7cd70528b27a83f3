"""DDPG on the walk (Lillicrap et al., 2016, arXiv 1509.02971)."""

from dataclasses import dataclass
from typing import ClassVar

import stable_baselines3
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from rlprune.agents.algorithms.base import DeterministicAgent


@dataclass(frozen=True)
class DDPG(DeterministicAgent):
    """Deep deterministic policy gradient, the algorithm of AMC, on the walk.

    Paper: Lillicrap et al., Continuous Control with Deep Reinforcement Learning, 2016, arXiv 1509.02971
    """

    algorithm: ClassVar[type[OffPolicyAlgorithm]] = stable_baselines3.DDPG
