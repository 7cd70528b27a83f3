"""The search: imagine thousands of walks, measure the few most promising plans, learn, repeat.

What is measured is the one-shot loss. With tunings, the same goes on afterwards with the loss after a brief
fine-tuning, which is closer to what counts in the end and a hundred times as dear, and then with longer ones of ever
fewer plans.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger, configure
from threadpoolctl import threadpool_limits

from rlprune.agents.agents import make_agent
from rlprune.agents.imitation import imitate
from rlprune.agents.level import Level, Measure, Target, fit
from rlprune.agents.reward_model import Measured, RewardModel
from rlprune.agents.rollout import greedy, rollout
from rlprune.agents.tuned_model import TunedModel
from rlprune.envs.vector import WalkVecEnv
from rlprune.envs.walk import Task
from rlprune.tuner import FEWER

WALKS = 512
"""Imagined walks side by side, those of all networks and budgets together."""
ROLLOUTS = 2
"""Imagined rollouts of `WALKS` walks between two rounds of measurements."""
PICKS = 8
"""Plans measured a round, of all networks and budgets together, but two of each at least."""
SCOUTS = 12
"""Plans around the base plans of a network that are measured before the first round, of all budgets together."""
ELITES = 8
"""Plans of every network and budget that the policy is drawn to before a round."""
CAREFUL = (0.0, 0.03, 0.1)
"""Deviations of the noise of the walks that look around what the policy has become."""
PATIENCE = 3
"""Rounds without a new plan after which there is nothing left to measure."""
CHECKS = (0.4, 0.7, 0.9)
"""Shares of the evaluations after which a forecast cost is compared with the truth of the best plan."""
TUNED_PICKS = 4
"""Plans tuned a round."""
TUNED_SCOUTS = 8
"""Plans around the base plan and the uniform one that are tuned before the first round."""
TUNED_BEST = 2
"""Plans with the lowest one-shot losses that are tuned before the first round."""
TWINS = 0.05
"""Root mean square difference of the log keep ratios up to which two plans are twins."""
FIRST_SHARE = 0.4
"""Share of a limited time after which one-shot losses have been measured enough, if there are tunings to come."""

Over = Callable[[float], bool]
"""Whether so much of the time has passed, as a share of it."""


@dataclass(frozen=True)
class Tuning:
    """The dear measures of a plan under the one budget of a search.

    Attributes:
        measures: plans -> losses after fine-tunings, first after a brief one.
        number: how many plans may be tuned briefly.
        starts: (groups,) plans that are tuned first, the base plan before all others.
    """

    measures: Sequence[Measure]
    number: int
    starts: Sequence[np.ndarray]


@dataclass(frozen=True)
class SearchResult:
    """The best plan of every network under every budget, their losses, and the one agent that found them.

    With tunings the plan is the one that is expected to be the best after one, and the loss is that of its tuning.

    Attributes:
        counts: (groups,) kept channels, network by network and budget by budget.
        losses: one a plan.
        agent: trained on all of them.
    """

    counts: list[np.ndarray]
    losses: list[float]
    agent: BaseAlgorithm


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


def search(
    targets: Sequence[Target],
    evaluations: int,
    agent: str = "ppo",
    seed: int = 0,
    log: Path | None = None,
    tuning: Tuning | None = None,
    over: Over = lambda share: False,
) -> SearchResult:
    """Search for the plan with the highest value, or for one of every network under every budget with a single policy.

    Args:
        targets: the networks.
        evaluations: how many plans may be measured, of all networks together.
        agent: name of the Stable-Baselines3 agent.
        seed: of everything drawn here.
        log: folder for TensorBoard, or None.
        tuning: with it, the search goes on with losses after brief fine-tunings; for one network under one budget.
        over: asked before every round.

    Returns:
        The best measured plans and the trained agent, which was drawn to them in the end.
    """
    rng = np.random.default_rng(seed)
    levels = [level for target in targets for level in _levels(target)]
    learner = make_agent(agent, _dreams(levels), _steps(levels), seed)
    # One logger for all rounds; left to itself every round would open a file of its own.
    learner.set_logger(configure(str(log / agent), ["tensorboard"]) if log else Logger(None, []))
    starts = [plans for target in targets for plans in target.starts or [()] * len(target.tasks)]
    _begin(levels, starts, len(targets), evaluations, rng)
    share = FIRST_SHARE if tuning else 1.0
    for part in CHECKS if any(target.correct for target in targets) else ():
        _improve(learner, levels, PICKS, int(part * evaluations), rng, lambda: over(share))
        if not over(share):
            _correct(learner, targets, levels, evaluations)
    _improve(learner, levels, PICKS, evaluations, rng, lambda: over(share))
    if tuning:
        level = _tuned(learner, levels[0], tuning, rng, over)
        _draw_to_the_best(learner, [level])
        end = int(np.argmax(_expected(level)))
        return SearchResult([level.counts[end]], [level.losses[end]], learner)
    _draw_to_the_best(learner, levels)
    ends = [int(level.best(1)[0]) for level in levels]
    counts = [level.counts[end] for level, end in zip(levels, ends, strict=True)]
    return SearchResult(counts, [level.losses[end] for level, end in zip(levels, ends, strict=True)], learner)


def _levels(target: Target) -> list[Level]:
    model = RewardModel(target.tasks[0].lander.sizes, target.foretell)
    return [Level(task, target.measure, model, place) for place, task in enumerate(target.tasks)]


def _steps(levels: Sequence[Level]) -> int:
    """Steps of the longest walk."""
    return max(len(level.task.base) for level in levels)


def _dreams(levels: Sequence[Level]) -> WalkVecEnv:
    """Imagined walks of all networks and budgets side by side."""
    scores = [level.dreaming() for level in levels]
    return WalkVecEnv([level.task for level in levels], scores, max(WALKS // len(levels) // 4, 1) * 4)


def _improve(
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
    walks, steps = env.num_envs, _steps(levels)
    fruitless = 0
    while (left := number - sum(map(len, levels))) > 0 and fruitless < PATIENCE and not over():
        with one_thread():
            fit(levels)
            _draw_to_the_best(learner, levels)
            learner.learn(ROLLOUTS * walks * steps, reset_num_timesteps=False)
            chosen = _promising(learner, levels, picks, left, rng)
        fruitless = 0 if any(chosen) else fruitless + 1
        for level, plans in zip(levels, chosen, strict=True):
            level.add(plans, len(plans))
        learner.logger.record("search/evaluations", sum(map(len, levels)))
        learner.logger.record("search/best_value", float(np.mean([_best_value(level) for level in levels])))


def _correct(learner: BaseAlgorithm, targets: Sequence[Target], levels: list[Level], evaluations: int) -> None:
    """Compare forecast costs with the truth; a search drifts to where these are too low."""
    for target, level in zip(targets, levels, strict=True):
        left = evaluations - sum(map(len, levels))
        if target.correct is not None and left > 0:
            level.land(target.correct(level.counts[level.best(1)[0]]), left)
    learner.set_env(_dreams(levels))


def _tuned(learner: BaseAlgorithm, cheap: Level, tuning: Tuning, rng: np.random.Generator, over: Over) -> Level:
    """Go on where one-shot losses have led to, with losses after brief tunings, then with longer ones of fewer plans.

    Of those that are tuned for longer a third were the best before; what these teach says which the others are.
    """
    _learn([cheap])
    task, oneshot = cheap.task, cheap.model.mean
    starts = _landed(task, tuning.starts)
    best = [cheap.counts[place] for place in cheap.best(TUNED_BEST)]
    around = [scout for start in starts for scout in _scouts(task, rng, TUNED_SCOUTS // 2, 0.5, start)]
    plans, number, brief = [*starts, *best, *around], tuning.number, list[Measured]()
    # Every length takes twice as long as the one before.
    weights = np.cumsum(2.0 ** np.arange(len(tuning.measures)))
    for measure, end in zip(tuning.measures, FIRST_SHARE + (1 - FIRST_SHARE) * weights / weights[-1], strict=True):
        level = Level(task, measure, TunedModel(task.lander.sizes, oneshot, *brief))
        _tune(learner, level, plans, number, rng, partial(over, end))
        number = len(level) // FEWER
        if number < 2:
            break
        plans, brief = [starts[0], *_different(level)[: -(-number // 3)]], [level.measured()]
    return level


def _tune(
    learner: BaseAlgorithm,
    level: Level,
    plans: Sequence[np.ndarray],
    number: int,
    rng: np.random.Generator,
    over: Callable[[], bool],
) -> None:
    """Tune given plans, the base plan first, and then those that the agent imagines with what these teach."""
    level.add(plans[:1], number)
    level.task = replace(level.task, base_value=float(level.values()[0]))
    for place in range(1, len(plans), TUNED_PICKS):
        if not over():
            level.add(plans[place : place + TUNED_PICKS], number - len(level))
    learner.set_env(_dreams([level]))
    _improve(learner, [level], TUNED_PICKS, number, rng, over)
    _learn([level])


@one_thread()
def _learn(levels: Sequence[Level]) -> None:
    fit(levels)


def _different(level: Level) -> list[np.ndarray]:
    """The plans of a level from the one that is expected to be the best on, without near twins of better ones: they
    teach no more."""
    chosen: list[np.ndarray] = []
    for place in np.argsort(-_expected(level)):
        counts = level.counts[place]
        if all(np.sqrt(np.mean(np.log(counts / other) ** 2)) > TWINS for other in chosen):
            chosen.append(counts)
    return chosen


@one_thread()
def _expected(level: Level) -> np.ndarray:
    """(plans,) what the plans of a level are worth: the lowest of many noisy losses is too good to be true, what the
    model makes of it is fairer."""
    plans = np.array(level.counts)
    return level.task.value(plans, level.model.mean(plans))


def _landed(task: Task, plans: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The same plans, landed anew where a corrected cost no longer admits them."""
    fit = task.lander.fits(np.array(plans))
    anew = task.finish(np.array(plans, dtype=float))
    return [plan if fits else landed for plan, fits, landed in zip(plans, fit, anew, strict=True)]


def _begin(
    levels: list[Level],
    starts: Sequence[Sequence[np.ndarray]],
    networks: int,
    evaluations: int,
    rng: np.random.Generator,
) -> None:
    """Measure the plans that are given, then some around the base plans."""
    each = -(-min(SCOUTS * networks, max(evaluations // 6, 4 * networks)) // len(levels))
    scouts = [_scouts(level.task, rng, each) for level in levels]
    for plans in (starts, scouts):
        for level, mine in zip(levels, plans, strict=True):
            level.add(list(mine), evaluations - sum(map(len, levels)))


def _scouts(
    task: Task, rng: np.random.Generator, number: int, width: float = 0.35, start: np.ndarray | None = None
) -> np.ndarray:
    """Plans around a start or the base plan, drawn wide enough for a model to see which groups matter."""
    start = task.base if start is None else start
    noise = rng.normal(0, width * task.reach, (number, len(start)))
    return task.finish(np.minimum(start * np.exp(noise), task.lander.sizes))


def _draw_to_the_best(learner: BaseAlgorithm, levels: list[Level]) -> None:
    imitate(learner, [(level.task, np.array(level.counts)[level.best(ELITES)]) for level in levels])


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
        plans = plans if len(plans) else _unknown(level, _scouts(level.task, rng, WALKS, 1.0))
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
