"""Rounds of a search: imagine thousands of walks, measure the few most promising plans, learn, repeat."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from threadpoolctl import threadpool_limits

from rlprune.agents.imitation import imitate
from rlprune.agents.level import Level, fit
from rlprune.agents.rollout import greedy, rollout
from rlprune.envs.vector import WalkVecEnv
from rlprune.envs.walk import Task

WALKS = 512
"""Imagined walks side by side, those of all networks and budgets together."""
ROLLOUTS = 2
"""Imagined rollouts of `WALKS` walks between two rounds of measurements."""
ELITES = 8
"""Plans of every network and budget that the policy is drawn to before a round."""
CAREFUL = (0.0, 0.03, 0.1)
"""Deviations of the noise of the walks that look around what the policy has become."""
PATIENCE = 3
"""Rounds without a new plan after which there is nothing left to measure."""


@contextmanager
def one_thread() -> Iterator[None]:
    """What agents and models compute is so small that handing it to a second thread takes longer than doing it, and
    hundreds of times as long where others keep the cores busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, "blas"):
            yield
    finally:
        torch.set_num_threads(threads)


def improve(
    learner: BaseAlgorithm,
    levels: list[Level],
    picks: int,
    number: int,
    rng: np.random.Generator,
    over: Callable[[], bool],
) -> None:
    """Imagine, measure and learn, round by round, until so many plans are measured or nothing new turns up."""
    env = learner.get_env()
    assert env is not None
    walks, steps = env.num_envs, steps_of(levels)
    fruitless = 0
    while (left := number - sum(map(len, levels))) > 0 and fruitless < PATIENCE and not over():
        with one_thread():
            fit(levels)
            draw_to_the_best(learner, levels)
            learner.learn(ROLLOUTS * walks * steps, reset_num_timesteps=False)
            chosen = _promising(learner, levels, picks, left, rng)
        fruitless = 0 if any(chosen) else fruitless + 1
        for level, plans in zip(levels, chosen, strict=True):
            level.add(plans, len(plans))
        learner.logger.record("search/evaluations", sum(map(len, levels)))
        learner.logger.record("search/best_value", float(np.mean([_best_value(level) for level in levels])))


def draw_to_the_best(learner: BaseAlgorithm, levels: list[Level]) -> None:
    imitate(learner, [(level.task, np.array(level.counts)[level.best(ELITES)]) for level in levels])


def steps_of(levels: Sequence[Level]) -> int:
    """Steps of the longest walk."""
    return max(len(level.task.base) for level in levels)


def dreams(levels: Sequence[Level]) -> WalkVecEnv:
    """Imagined walks of all networks and budgets side by side."""
    scores = [level.dreaming() for level in levels]
    return WalkVecEnv([level.task for level in levels], scores, max(WALKS // len(levels) // 4, 1) * 4)


def scouts(
    task: Task, rng: np.random.Generator, number: int, width: float = 0.35, start: np.ndarray | None = None
) -> np.ndarray:
    """Plans around a start or the base plan, drawn wide enough for a model to see which groups matter."""
    start = task.base if start is None else start
    noise = rng.normal(0, width * task.reach, (number, len(start)))
    return task.finish(np.minimum(start * np.exp(noise), task.lander.sizes))


def _promising(
    learner: BaseAlgorithm, levels: list[Level], number: int, left: int, rng: np.random.Generator
) -> list[list[np.ndarray]]:
    """For every level the plans to measure: of those imagined the best by more and more optimistic forecasts, and
    none that is known."""
    chosen: list[list[np.ndarray]] = []
    for level in levels:
        most = min(max(number // len(levels), 2), left - sum(map(len, chosen)))
        level.imagined.append(_careful(learner, level.task, rng))
        plans = _unknown(level)
        # An agent that has settled repeats itself; then look around, farther than in the beginning.
        plans = plans if len(plans) else _unknown(level, scouts(level.task, rng, WALKS, 1.0))
        level.imagined.clear()
        picks: list[int] = []
        if len(plans):
            mean, doubt = level.model.predict(plans, level.budget)
            picks = _optimistic(level.task, plans, mean, doubt, most)
        chosen.append([plans[pick] for pick in picks])
    return chosen


def _careful(learner: BaseAlgorithm, task: Task, rng: np.random.Generator) -> np.ndarray:
    """Plans of walks close to what the policy does without exploring."""
    deviations = rng.choice(CAREFUL, WALKS)
    choose = greedy(learner)
    return rollout(lambda seen: choose(seen) + rng.normal(0, 1, len(seen)) * deviations, task, WALKS)[1]


def _unknown(level: Level, plans: np.ndarray | None = None) -> np.ndarray:
    """(plans, groups) those that were imagined, or those given, each once and without the measured ones."""
    plans = np.concatenate(level.imagined) if plans is None else plans
    return np.array([plan for plan in np.unique(plans, axis=0) if plan not in level]).reshape(-1, plans.shape[1])


def _optimistic(task: Task, plans: np.ndarray, mean: np.ndarray, doubt: np.ndarray, number: int) -> list[int]:
    picks: list[int] = []
    for optimism in np.linspace(0, 1.5, min(number, len(plans))):
        values = task.value(plans, mean - optimism * doubt)
        values[picks] = -np.inf
        picks.append(int(np.argmax(values)))
    return picks


def _best_value(level: Level) -> float:
    return float(level.values().max())
