"""What agents with a replay buffer remember, kept in step with what a finished plan is worth.

They learn from walks of long ago. The score of a plan is a forecast, and another one after every round of
measurements: without this, most of what they learn from would be worth what was believed then, or what another
fidelity says.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from rlprune.agents.search.archive import PlanArchive, steps_of


class PlanReplayBuffer(NStepReplayBuffer):
    """A replay buffer that knows the plans its walks have ended in, so that their rewards can be set anew."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._plans: dict[int, dict[int, np.ndarray]] = {}

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self._plans.clear()

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """One step of all walks; the `counts` in the infos of those that end are their plans."""
        self._plans[self.pos] = {walk: info["counts"] for walk, info in enumerate(infos) if "counts" in info}
        super().add(obs, next_obs, action, reward, done, infos)

    def set_rewards(self, walks: range, reward: Callable[[np.ndarray], np.ndarray]) -> None:
        """Set the rewards at the ends of some of the walks.

        Args:
            walks: which of those side by side; all of one network.
            reward: (plans, groups) kept counts -> (plans,) rewards.
        """
        ends = [(row, walk) for row, plans in self._plans.items() for walk in plans if walk in walks]
        if ends:
            counts = np.array([self._plans[row][walk] for row, walk in ends])
            rows, columns = np.array(ends).T
            self.rewards[rows, columns] = reward(counts)


def remember_plans(learner: BaseAlgorithm) -> None:
    """Give an agent that has one of Stable-Baselines3's plain replay buffers one that remembers plans.

    It is changed here, and not given to the algorithm, so that the agent's own file can be read without rlprune.
    """
    if isinstance(learner, OffPolicyAlgorithm) and type(learner.replay_buffer) in (ReplayBuffer, NStepReplayBuffer):
        learner.replay_buffer = PlanReplayBuffer(
            learner.buffer_size,
            learner.observation_space,
            learner.action_space,
            device=learner.device,
            n_envs=learner.n_envs,
            n_steps=learner.n_steps,
            gamma=learner.gamma,
        )


def rescore(learner: BaseAlgorithm, archives: Sequence[PlanArchive]) -> None:
    """What is remembered is worth what the models say now; no walk has to be taken again.

    A buffer of another kind does not know the plans and is emptied.
    """
    if not isinstance(learner, OffPolicyAlgorithm):
        return
    buffer = learner.replay_buffer
    if not isinstance(buffer, PlanReplayBuffer):
        forget(learner, archives)
        return
    each = learner.n_envs // len(archives)
    for place, archive in enumerate(archives):
        buffer.set_rewards(range(place * each, (place + 1) * each), archive.expected_reward)


def forget(learner: BaseAlgorithm, archives: Sequence[PlanArchive]) -> None:
    """Empty a replay buffer: under another budget or cost the same actions end in other plans.

    Learning waits for a whole walk of all, as in the beginning.
    """
    if isinstance(learner, OffPolicyAlgorithm) and learner.replay_buffer is not None:
        learner.replay_buffer.reset()
        learner.learning_starts = learner.num_timesteps + learner.n_envs * steps_of(archives)
