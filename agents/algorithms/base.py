"""What the agents of a search share: all start on the base plan, and all are allocators."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import NormalActionNoise, VectorizedActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from rlprune.agents.diagnostics import collapse
from rlprune.agents.search.archive import Target
from rlprune.agents.search.engine import search
from rlprune.agents.search.exploration import widen
from rlprune.agents.search.setup import prepare_for
from rlprune.cost.budget import Budget
from rlprune.envs.decisions.base import make_decisions
from rlprune.evaluation.metered import AllocationProblem
from rlprune.methods.allocators.base import Allocation, Allocator
from rlprune.methods.allocators.base_plans import evaluations_before_search


@dataclass(frozen=True)
class Agent(Allocator):
    """A Stable-Baselines3 algorithm; its fields are the settings that people may change."""

    needs: ClassVar[tuple[str, ...]] = ("sensitivities",)
    decides: ClassVar[bool] = True

    def make(self, env: VecEnv, episode: int, seed: int) -> BaseAlgorithm:
        """An agent whose first policy is the base plan itself, with a little noise around it.

        Args:
            env: walks that finish together.
            episode: steps of a walk.
            seed: for the agent's weights and draws.
        """
        common = {"env": env, "seed": seed, "device": "cpu", "gamma": 1.0, "verbose": 0}
        agent = self.build(env.num_envs, episode, common)
        start_at_zero(agent)
        return agent

    @abstractmethod
    def build(self, walks: int, episode: int, common: dict[str, Any]) -> BaseAlgorithm:
        """The algorithm with its settings.

        Args:
            walks: that go side by side.
            episode: steps of a walk.
            common: arguments that all algorithms take.
        """

    def evaluations_needed(self, groups: int, budget: Budget) -> int:
        """See `Allocator.evaluations_needed`."""
        return evaluations_before_search(groups, budget)

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """Search as `rlprune search` does; remarks if the policy collapsed."""
        prepared, evaluations = prepare_for(problem, make_decisions(problem.decisions))
        target = Target(
            prepared.specs,
            problem.losses,
            prepared.sensitivity.predict,
            prepared.first,
        )
        found = search([target], evaluations, self, problem.seed)
        return problem.allocation(collapse(found.agent, prepared.specs[0]))


@dataclass(frozen=True)
class DeterministicAgent(Agent):
    """A deterministic actor with a replay buffer, which explores by noise on its actions.

    Attributes:
        algorithm: that of Stable-Baselines3.
        learning_rate: of actor and critic.
        gradient_steps: after every step of the walks.
        noise: standard deviation of the noise on the actions.
    """

    algorithm: ClassVar[type[OffPolicyAlgorithm]]
    learning_rate: float = 1e-3
    gradient_steps: int = 8
    noise: float = 0.2

    def build(self, walks: int, episode: int, common: dict[str, Any]) -> BaseAlgorithm:
        """See `Agent.build`."""
        return self.algorithm(
            "MlpPolicy",
            learning_rate=self.learning_rate,
            gradient_steps=self.gradient_steps,
            action_noise=VectorizedActionNoise(NormalActionNoise(np.zeros(1), np.full(1, self.noise)), walks),
            **off_policy(walks, episode),
            **common,
        )


def off_policy(walks: int, episode: int) -> dict[str, Any]:
    """Settings that the algorithms with a replay buffer share."""
    return {
        "batch_size": 256,
        "buffer_size": 200_000,
        "learning_starts": walks * episode,
        "train_freq": (1, "step"),
        # The reward comes at the end: returns over the whole episode need no critic to carry it back step by step.
        "n_steps": episode,
        "policy_kwargs": {"net_arch": [64, 64]},
    }


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
            widen(policy.actor)
