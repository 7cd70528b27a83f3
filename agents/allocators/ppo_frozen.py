"""PPO that never learns: a control that tells what the gradient adds to all else that a search does."""

from dataclasses import dataclass
from typing import ClassVar

import stable_baselines3

from rlprune.agents.algorithms.ppo import PPO


class FrozenPPO(stable_baselines3.PPO):
    """PPO whose updates are left out; its walks are as noisy as in the beginning."""

    def train(self) -> None:
        """Leave the policy as it is."""


@dataclass(frozen=True)
class PPOFrozen(PPO):
    """`ppo` without its gradient, a control: imitation of the best plans and noisy walks are all that is left.

    What `ppo` does better than this its learning does.
    """

    algorithm: ClassVar[type[stable_baselines3.PPO]] = FrozenPPO
