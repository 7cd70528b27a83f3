"""Rounds of a search: imagine thousands of walks, measure the few most promising plans, learn, repeat."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from threadpoolctl import threadpool_limits

from rlprune.agents.imitation import imitate
from rlprune.agents.rollout import greedy, rollout
from rlprune.agents.search.archive import PlanArchive, fit, steps_of
from rlprune.agents.search.exploration import keep_exploring
from rlprune.agents.search.memory import rescore
from rlprune.agents.search.picks import batch
from rlprune.envs.episode import EpisodeSpec
from rlprune.envs.vector import WalkVecEnv

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
    archives: list[PlanArchive],
    picks: int,
    number: int,
    rng: np.random.Generator,
    over: Callable[[], bool],
) -> None:
    """Imagine, measure and learn, round by round, until so many plans are measured or nothing new turns up."""
    env = learner.get_env()
    assert env is not None
    walks, steps = env.num_envs, steps_of(archives)
    fruitless = 0
    while (left := number - sum(map(len, archives))) > 0 and fruitless < PATIENCE and not over():
        with one_thread():
            fit(archives)
            rescore(learner, archives)
            imitate_elites(learner, archives)
            keep_exploring(learner)
            learner.learn(ROLLOUTS * walks * steps, reset_num_timesteps=False)
            chosen = _promising(learner, archives, picks, left, rng)
        fruitless = 0 if any(chosen) else fruitless + 1
        for archive, plans in zip(archives, chosen, strict=True):
            archive.add(plans, len(plans))
        learner.logger.record("search/evaluations", sum(map(len, archives)))
        learner.logger.record("search/best_value", float(np.mean([_best_value(archive) for archive in archives])))


def imitate_elites(learner: BaseAlgorithm, archives: list[PlanArchive]) -> None:
    imitate(learner, [(archive.spec, np.array(archive.counts)[archive.best(ELITES)]) for archive in archives])


def imagined_episodes(archives: Sequence[PlanArchive]) -> WalkVecEnv:
    """Imagined walks of all networks and budgets side by side."""
    scores = [archive.imagined_score() for archive in archives]
    return WalkVecEnv([archive.spec for archive in archives], scores, max(WALKS // len(archives) // 4, 1) * 4)


def perturbed_plans(
    spec: EpisodeSpec, rng: np.random.Generator, number: int, width: float = 0.35, start: np.ndarray | None = None
) -> np.ndarray:
    """Plans around a start or the base plan, drawn wide enough for a model to see which groups matter."""
    start = spec.base if start is None else start
    noise = rng.normal(0, width * spec.reach, (number, len(spec.base)))
    return spec.vary(spec.scaled(start, noise), rng)


def _promising(
    learner: BaseAlgorithm, archives: list[PlanArchive], number: int, left: int, rng: np.random.Generator
) -> list[list[np.ndarray]]:
    """For every archive the plans to measure, of those imagined and none that is known."""
    chosen: list[list[np.ndarray]] = []
    for archive in archives:
        most = min(max(number // len(archives), 2), left - sum(map(len, chosen)))
        archive.imagined.append(_careful(learner, archive.spec, rng))
        plans = unknown(archive, np.concatenate(archive.imagined))
        # An agent that has settled repeats itself; then look around, farther than in the beginning.
        plans = plans if len(plans) else unknown(archive, perturbed_plans(archive.spec, rng, WALKS, 1.0))
        archive.imagined.clear()
        chosen.append(batch(archive, plans, most) if len(plans) else [])
    return chosen


def _careful(learner: BaseAlgorithm, spec: EpisodeSpec, rng: np.random.Generator) -> np.ndarray:
    """Plans of walks close to what the policy does without exploring."""
    deviations = rng.choice(CAREFUL, WALKS)
    choose = greedy(learner)
    return rollout(lambda seen: choose(seen) + rng.normal(0, 1, len(seen)) * deviations, spec, WALKS)[1]


def unknown(archive: PlanArchive, plans: np.ndarray) -> np.ndarray:
    """(plans, groups) those given, each once and without the measured ones."""
    return np.array([plan for plan in np.unique(plans, axis=0) if plan not in archive]).reshape(-1, plans.shape[1])


def _best_value(archive: PlanArchive) -> float:
    return float(archive.values().max())
