"""AMC (He et al., 2018, arXiv 1802.03494): DDPG on absolute keep ratios, one real evaluation an episode.

The reward is that of the resource-constrained search, minus the top-1 error, given to every step of the episode; an
exponential moving average of the rewards is subtracted as a baseline. Settings are those of the paper and, where it is
silent (decay of the noise, rate of the baseline), of the authors' code. Different from the paper: a step is a group of
coupled channels, the criterion chooses the channels, batch norm is recalibrated instead of the weights being refitted,
and the action that is learnt from is the one behind the wall.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.stats import truncnorm
from stable_baselines3 import DDPG
from stable_baselines3.common.buffers import ReplayBuffer, ReplayBufferSamples
from stable_baselines3.common.logger import Logger
from torch.optim import Optimizer

from rlprune.agents.diagnostics import at_one_bound, one_plan
from rlprune.agents.search.rounds import one_thread
from rlprune.envs.amc import AmcEnv, describe_layers, shares_of_macs
from rlprune.evaluation.metered import Allocation, AllocationProblem
from rlprune.methods.allocators.base import Allocator

WARM_UP = 100
"""Episodes of exploration before the noise decays, out of 400; a quarter where there are fewer."""
NOISE, DECAY, LEAST = 0.5, 0.95, 1e-9
REPLAY, BATCH, UNITS, TAU = 2000, 64, 300, 0.01
ACTOR_RATE, CRITIC_RATE = 1e-4, 1e-3
RATE = 0.5
"""Weight of a new batch in the moving average of the rewards."""
Step = tuple[np.ndarray, float, np.ndarray]
"""What was seen, the keep ratio that was chosen, and what was seen then."""


@dataclass(frozen=True)
class AMC(Allocator):
    """DDPG on absolute keep ratios behind an action wall, one real evaluation an episode.

    Paper: He et al., AMC: AutoML for Model Compression and Acceleration, 2018, arXiv 1802.03494
    """

    needs: ClassVar[tuple[str, ...]] = ()

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """See `Allocator.allocate`; plans that come again are free and may leave some evaluations unused."""
        workload, rng = problem.workload, np.random.default_rng(problem.seed)
        problem.begin()
        layers = describe_layers(workload.module, workload.graph)
        flops = shares_of_macs(workload.graph, workload.cost.dense[0])
        env = AmcEnv(problem.projector, layers, flops, lambda counts: problem(counts).accuracy - 1)
        agent = make_amc(env, problem.seed)
        warm_up = min(WARM_UP, problem.evaluations // 4)
        plans = []
        for episode in range(problem.evaluations):
            steps, reward = _walk(agent, env, max(NOISE * DECAY ** max(0, episode - warm_up), LEAST), rng)
            remember(agent, steps, reward)
            plans.append(env.counts)
            if episode >= warm_up:
                with one_thread():
                    agent.train(len(steps), BATCH)
        ratios, _ = agent.predict(np.array([seen for seen, _, _ in steps]))
        return problem.allocation(at_one_bound(ratios, 0.0, 1.0) or one_plan(np.array(plans[warm_up:])))


class TwoRatesDDPG(DDPG):
    """DDPG whose actor and critic learn at rates of their own."""

    def _update_learning_rate(self, optimizers: list[Optimizer] | Optimizer) -> None:
        for optimizer, rate in ((self.actor.optimizer, ACTOR_RATE), (self.critic.optimizer, CRITIC_RATE)):
            for settings in optimizer.param_groups:
                settings["lr"] = rate


class Centred(ReplayBuffer):
    """A replay buffer that subtracts the moving average of the rewards: y = r − b + γ Q."""

    baseline: float | None = None

    def sample(self, batch_size: int, env: Any = None) -> ReplayBufferSamples:
        """A batch with centred rewards."""
        batch = super().sample(batch_size, env)
        mean = float(batch.rewards.mean())
        self.baseline = mean if self.baseline is None else self.baseline + RATE * (mean - self.baseline)
        return batch._replace(rewards=batch.rewards - self.baseline)


def make_amc(env: AmcEnv, seed: int) -> TwoRatesDDPG:
    """The agent with the paper's settings; `train` is called by hand, after every episode."""
    agent = TwoRatesDDPG(
        "MlpPolicy",
        env,
        buffer_size=REPLAY,
        batch_size=BATCH,
        tau=TAU,
        gamma=1.0,
        policy_kwargs={"net_arch": [UNITS, UNITS]},
        replay_buffer_class=Centred,
        seed=seed,
        device="cpu",
    )
    agent.set_logger(Logger(None, []))
    return agent


def explore(mean: float, sigma: float, rng: np.random.Generator) -> float:
    """A draw from the normal distribution around a keep ratio, truncated to [0, 1]."""
    return float(truncnorm.rvs(-mean / sigma, (1 - mean) / sigma, loc=mean, scale=sigma, random_state=rng))


def _walk(agent: TwoRatesDDPG, env: AmcEnv, sigma: float, rng: np.random.Generator) -> tuple[list[Step], float]:
    """The steps of one episode, and its reward."""
    seen, _ = env.reset()
    steps, finished, reward = [], False, 0.0
    while not finished:
        action = explore(float(agent.predict(seen)[0][0]), sigma, rng)
        then, reward, finished, _, info = env.step(np.array([action]))
        steps.append((seen, info["ratio"], then))
        seen = then
    return steps, reward


def remember(agent: TwoRatesDDPG, steps: list[Step], reward: float) -> None:
    """Put an episode into the replay buffer, every step with the reward of its end."""
    assert isinstance(agent.replay_buffer, Centred)
    for number, (seen, ratio, then) in enumerate(steps, start=1):
        action = agent.policy.scale_action(np.array([[ratio]], dtype=np.float32))
        done = np.array([number == len(steps)])
        agent.replay_buffer.add(seen[None], then[None], action, np.array([reward]), done, [{}])
