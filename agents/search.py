"""The search: imagine thousands of walks, measure the few most promising plans, learn, repeat."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger, configure

from rlprune.agents.agents import make_agent
from rlprune.agents.reward_model import RewardModel
from rlprune.envs.vector import WalkVecEnv
from rlprune.envs.walk import Task

WALKS = 512
"""Imagined walks side by side."""
ROLLOUTS = 3
"""Imagined rollouts of `WALKS` walks between two rounds of measurements."""
PICKS = 16
"""Plans measured a round."""
PATIENCE = 3
"""Rounds without a new plan after which there is nothing left to measure."""


@dataclass(frozen=True)
class SearchResult:
    """The best plan found, and the agent that found it."""

    counts: np.ndarray
    loss: float
    agent: BaseAlgorithm


class Archive:
    """Every measured plan of a search.

    Args:
        measure: (groups,) kept counts -> loss; the expensive part.
        task: what counts.
    """

    def __init__(self, measure: Callable[[np.ndarray], float], task: Task) -> None:
        self.measure = measure
        self.task = task
        self.counts: list[np.ndarray] = []
        self.losses: list[float] = []
        self._seen: set[bytes] = set()

    def __len__(self) -> int:
        return len(self.counts)

    def __contains__(self, counts: np.ndarray) -> bool:
        return counts.tobytes() in self._seen

    def add(self, counts: np.ndarray) -> None:
        """Measure a plan unless it is known."""
        if counts not in self:
            self._seen.add(counts.tobytes())
            self.losses.append(self.measure(counts))
            self.counts.append(counts)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """(plans, groups) counts and (plans,) losses."""
        return np.array(self.counts), np.array(self.losses)

    def best(self) -> int:
        """Index of the plan with the highest value."""
        return int(np.argmax(self.task.value(*self.arrays())))


def search(
    task: Task,
    measure: Callable[[np.ndarray], float],
    evaluations: int,
    agent: str = "ppo",
    seed: int = 0,
    starts: tuple[np.ndarray, ...] = (),
    log: Path | None = None,
) -> SearchResult:
    """Search for the plan with the highest value.

    Args:
        task: what is walked and what counts.
        measure: (groups,) kept counts -> loss on the search split.
        evaluations: how many plans may be measured.
        agent: name of the Stable-Baselines3 agent.
        seed: of everything drawn here.
        starts: (groups,) plans that are measured first.
        log: folder for TensorBoard, or None.

    Returns:
        The best measured plan and the trained agent.
    """
    rng = np.random.default_rng(seed)
    archive = Archive(measure, task)
    model = RewardModel(task.lander.sizes)
    pool: list[np.ndarray] = []
    env = WalkVecEnv(task, model.mean, WALKS, lambda counts, _: pool.append(counts.copy()))
    learner = make_agent(agent, env, len(task.base), seed)
    # One logger for all rounds; left to itself every round would open a file of its own.
    learner.set_logger(configure(str(log / agent), ["tensorboard"]) if log else Logger(None, []))
    for plan in (*starts, *_scouts(task, rng, min(32, max(evaluations // 6, 4)))):
        if len(archive) < evaluations:
            archive.add(plan)
    fruitless = 0
    while len(archive) < evaluations and fruitless < PATIENCE:
        model.fit(*archive.arrays())
        pool.clear()
        with one_thread():
            learner.learn(ROLLOUTS * WALKS * len(task.base), reset_num_timesteps=False)
        number = min(PICKS, evaluations - len(archive))
        # An agent that has settled repeats itself; then look around as in the beginning.
        picks = _promising(np.concatenate(pool), model, archive, number)
        picks = picks or _promising(_scouts(task, rng, WALKS), model, archive, number)
        fruitless = 0 if picks else fruitless + 1
        for plan in picks:
            archive.add(plan)
        learner.logger.record("search/evaluations", len(archive))
        learner.logger.record("search/best_loss", archive.losses[archive.best()])
    best = archive.best()
    return SearchResult(archive.counts[best], archive.losses[best], learner)


@contextmanager
def one_thread() -> Iterator[None]:
    """The agent's networks are so small that handing their work to a second thread takes longer than doing it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _scouts(task: Task, rng: np.random.Generator, number: int) -> np.ndarray:
    """Plans around the base plan, drawn wide enough for the reward model to see which groups matter."""
    noise = rng.normal(0, 0.35 * task.reach, (number, len(task.base)))
    return task.finish(np.minimum(task.base * np.exp(noise), task.lander.sizes))


def _promising(plans: np.ndarray, model: RewardModel, archive: Archive, number: int) -> list[np.ndarray]:
    """The plans to measure: best by more and more optimistic forecasts, none twice, none that is known."""
    new = [plan for plan in np.unique(plans, axis=0) if plan not in archive]
    if not new:
        return []
    plans = np.array(new)
    mean, deviation = model.predict(plans)
    picks: list[int] = []
    for optimism in np.linspace(0, 1.5, min(number, len(plans))):
        values = archive.task.value(plans, mean - optimism * deviation)
        values[picks] = -np.inf
        picks.append(int(np.argmax(values)))
    return [plans[pick] for pick in picks]
