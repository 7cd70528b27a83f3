"""TD3 on the walk (Fujimoto et al., 2018, arXiv 1802.09477)."""

from dataclasses import dataclass
from typing import ClassVar

import stable_baselines3
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from rlprune.agents.algorithms.base import DeterministicAgent


@dataclass(frozen=True)
class TD3(DeterministicAgent):
    """Twin delayed deterministic policy gradient on the walk.

    Paper: Fujimoto et al., Addressing Function Approximation Error in Actor-Critic Methods, 2018, arXiv 1802.09477
    """

    algorithm: ClassVar[type[OffPolicyAlgorithm]] = stable_baselines3.TD3
