"""The search: imagine thousands of walks, measure the few most promising plans, learn, repeat.

What is measured is the one-shot loss. With tunings, the same goes on afterwards with the loss after a brief
fine-tuning, which is closer to what counts in the end and a hundred times as dear.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger, configure

from rlprune.agents.agents import make_agent
from rlprune.agents.imitation import imitate
from rlprune.agents.reward_model import Measured, RewardModel
from rlprune.agents.rollout import greedy, rollout
from rlprune.agents.tuned_model import TunedModel
from rlprune.envs.vector import WalkVecEnv
from rlprune.envs.walk import Score, Task

WALKS = 512
"""Imagined walks side by side, those of all budgets together."""
ROLLOUTS = 2
"""Imagined rollouts of `WALKS` walks between two rounds of measurements."""
PICKS = 8
"""Plans measured a round, of all budgets together, but two of each at least."""
SCOUTS = 12
"""Plans around the base plans that are measured before the first round, of all budgets together."""
ELITES = 8
"""Plans of every budget that the policy is drawn to before a round."""
CAREFUL = (0.0, 0.03, 0.1)
"""Deviations of the noise of the walks that look around what the policy has become."""
PATIENCE = 3
"""Rounds without a new plan after which there is nothing left to measure."""
TUNED_PICKS = 4
"""Plans tuned a round."""
TUNED_SCOUTS = 8
"""Plans around the base plan and the uniform one that are tuned before the first round."""
TUNED_BEST = 2
"""Plans with the lowest one-shot losses that are tuned before the first round."""
FIRST_SHARE = 0.4
"""Share of a limited time after which one-shot losses have been measured enough, if there are tunings to come."""

Measure = Callable[[Sequence[np.ndarray]], Sequence[float]]
"""Plans, each (groups,) kept counts -> their losses; the expensive part."""
Over = Callable[[float], bool]
"""Whether so much of the time has passed, as a share of it."""


class Model(Protocol):
    """What is believed of plans that were not measured."""

    def fit(self, budgets: Sequence[Measured]) -> None:
        """Learn from all measured plans."""

    def mean(self, counts: np.ndarray, budget: int = 0) -> np.ndarray:
        """(plans,) expected losses."""

    def predict(self, counts: np.ndarray, budget: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """(plans,) expected losses and how far off they may be."""


class Level:
    """One budget of a search: every plan that was measured or imagined under it.

    Args:
        task: what counts.
        measure: the expensive part.
    """

    def __init__(self, task: Task, measure: Measure) -> None:
        self.task = task
        self.measure = measure
        self.counts: list[np.ndarray] = []
        self.losses: list[float] = []
        self.imagined: list[np.ndarray] = []
        self._seen: set[bytes] = set()

    def __len__(self) -> int:
        return len(self.counts)

    def __contains__(self, counts: np.ndarray) -> bool:
        return counts.tobytes() in self._seen

    def add(self, plans: Sequence[np.ndarray], most: int) -> None:
        """Measure the first plans that are not known, so many at most."""
        new: list[np.ndarray] = []
        for counts in plans:
            if counts not in self and len(new) < most:
                self._seen.add(counts.tobytes())
                new.append(counts)
        self.losses += self.measure(new)
        self.counts += new

    def measured(self) -> Measured:
        """(plans, groups) counts and (plans,) losses."""
        return np.array(self.counts), np.array(self.losses)

    def best(self, number: int) -> np.ndarray:
        """Indices of the plans with the highest values, best first."""
        return np.argsort(-self.task.value(*self.measured()), kind="stable")[:number]

    def dreaming(self, loss: Score) -> Score:
        """A score of imagined walks that remembers their plans."""

        def score(counts: np.ndarray) -> np.ndarray:
            self.imagined.append(counts.copy())
            return loss(counts)

        return score


@dataclass(frozen=True)
class Tuning:
    """The dear measure of a plan under the one budget of a search.

    Attributes:
        measure: plans -> losses after a brief fine-tuning.
        number: how many plans may be tuned.
        starts: (groups,) plans that are tuned first, the base plan before all others.
    """

    measure: Measure
    number: int
    starts: Sequence[np.ndarray]


@dataclass(frozen=True)
class SearchResult:
    """The best plan of every budget, their losses, and the one agent that found them.

    With tunings the plan is the one that is expected to be the best after one, and the loss is that of its tuning.
    """

    counts: list[np.ndarray]
    losses: list[float]
    agent: BaseAlgorithm


def search(
    tasks: Sequence[Task],
    measure: Measure,
    evaluations: int,
    foretell: Callable[[np.ndarray], np.ndarray],
    agent: str = "ppo",
    seed: int = 0,
    starts: Sequence[Sequence[np.ndarray]] = (),
    log: Path | None = None,
    tuning: Tuning | None = None,
    over: Over = lambda share: False,
) -> SearchResult:
    """Search for the plan with the highest value, or for one under every budget with a single policy.

    Args:
        tasks: what is walked and what counts; one a budget.
        measure: plans -> losses on the search split.
        evaluations: how many plans may be measured.
        foretell: the additive model, (plans, groups) keep ratios -> (plans,) rises of the loss.
        agent: name of the Stable-Baselines3 agent.
        seed: of everything drawn here.
        starts: for every task (groups,) plans that are measured first.
        log: folder for TensorBoard, or None.
        tuning: with it, the search goes on with losses after brief fine-tunings; for a single task.
        over: asked before every round.

    Returns:
        The best measured plans and the trained agent, which was drawn to them in the end.
    """
    rng = np.random.default_rng(seed)
    levels = [Level(task, measure) for task in tasks]
    model = RewardModel(tasks[0].lander.sizes, foretell)
    learner = make_agent(agent, _dreams(levels, model), len(tasks[0].base), seed)
    # One logger for all rounds; left to itself every round would open a file of its own.
    learner.set_logger(configure(str(log / agent), ["tensorboard"]) if log else Logger(None, []))
    _begin(levels, starts, evaluations, rng)
    share = FIRST_SHARE if tuning else 1.0
    _improve(learner, levels, model, PICKS, evaluations, rng, lambda: over(share))
    if tuning:
        level, dear = _tuned(learner, levels[0], model, tuning, rng, lambda: over(1.0))
        _draw_to_the_best(learner, [level])
        # The lowest of many noisy losses is too good to be true; what the model makes of it is fairer.
        end = int(np.argmax(level.task.value(np.array(level.counts), dear.mean(np.array(level.counts)))))
        return SearchResult([level.counts[end]], [level.losses[end]], learner)
    _draw_to_the_best(learner, levels)
    ends = [int(level.best(1)[0]) for level in levels]
    counts = [level.counts[end] for level, end in zip(levels, ends, strict=True)]
    return SearchResult(counts, [level.losses[end] for level, end in zip(levels, ends, strict=True)], learner)


def _dreams(levels: Sequence[Level], model: Model) -> WalkVecEnv:
    """Imagined walks of all budgets side by side."""
    scores = [level.dreaming(partial(model.mean, budget=place)) for place, level in enumerate(levels)]
    return WalkVecEnv([level.task for level in levels], scores, max(WALKS // len(levels) // 4, 1) * 4)


def _improve(
    learner: BaseAlgorithm,
    levels: list[Level],
    model: Model,
    picks: int,
    number: int,
    rng: np.random.Generator,
    over: Callable[[], bool],
) -> None:
    """Imagine, measure and learn, round by round, until so many plans are measured or nothing new turns up."""
    env = learner.get_env()
    assert env is not None
    walks, steps = env.num_envs, len(levels[0].task.base)
    fruitless = 0
    while (left := number - sum(map(len, levels))) > 0 and fruitless < PATIENCE and not over():
        with one_thread():
            model.fit([level.measured() for level in levels])
            _draw_to_the_best(learner, levels)
            learner.learn(ROLLOUTS * walks * steps, reset_num_timesteps=False)
            chosen = _promising(learner, levels, model, picks, left, rng)
        fruitless = 0 if any(chosen) else fruitless + 1
        for level, plans in zip(levels, chosen, strict=True):
            level.add(plans, len(plans))
        learner.logger.record("search/evaluations", sum(map(len, levels)))
        learner.logger.record("search/best_value", float(np.mean([_best_value(level) for level in levels])))


def _tuned(
    learner: BaseAlgorithm,
    cheap: Level,
    oneshot: RewardModel,
    tuning: Tuning,
    rng: np.random.Generator,
    over: Callable[[], bool],
) -> tuple[Level, TunedModel]:
    """Go on where one-shot losses have led to, with losses after tuning."""
    with one_thread():
        oneshot.fit([cheap.measured()])
    best = [cheap.counts[place] for place in cheap.best(TUNED_BEST)]
    level = Level(cheap.task, tuning.measure)
    level.add(tuning.starts[:1], tuning.number)
    value = float(level.task.value(*level.measured())[0])
    level.task = replace(level.task, base_value=value)
    around = [scout for start in tuning.starts for scout in _scouts(cheap.task, rng, TUNED_SCOUTS // 2, 0.5, start)]
    plans = [*tuning.starts[1:], *best, *around]
    for place in range(0, len(plans), TUNED_PICKS):
        if not over():
            level.add(plans[place : place + TUNED_PICKS], tuning.number - len(level))
    model = TunedModel(cheap.task.lander.sizes, oneshot.mean)
    learner.set_env(_dreams([level], model))
    _improve(learner, [level], model, TUNED_PICKS, tuning.number, rng, over)
    model.fit([level.measured()])
    return level, model


@contextmanager
def one_thread() -> Iterator[None]:
    """The agent's networks are so small that handing their work to a second thread takes longer than doing it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _begin(
    levels: list[Level], starts: Sequence[Sequence[np.ndarray]], evaluations: int, rng: np.random.Generator
) -> None:
    """Measure the plans that are given, then some around the base plans."""
    each = -(-min(SCOUTS, max(evaluations // 6, 4)) // len(levels))
    scouts = [_scouts(level.task, rng, each) for level in levels]
    for plans in (starts, scouts):
        for level, mine in zip(levels, plans, strict=False):
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
    learner: BaseAlgorithm, levels: list[Level], model: Model, number: int, left: int, rng: np.random.Generator
) -> list[list[np.ndarray]]:
    """For every budget the plans to measure: of those imagined the best by more and more optimistic forecasts, and
    none that is known."""
    chosen: list[list[np.ndarray]] = []
    for place, level in enumerate(levels):
        most = min(max(number // len(levels), 2), left - sum(map(len, chosen)))
        level.imagined.append(_careful(learner, level.task, rng))
        plans = _unknown(level)
        # An agent that has settled repeats itself; then look around, farther than in the beginning.
        plans = plans if len(plans) else _unknown(level, _scouts(level.task, rng, WALKS, 1.0))
        level.imagined.clear()
        picks: list[int] = []
        if len(plans):
            picks = _optimistic(level.task, plans, *model.predict(plans, place), most)
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
    return float(level.task.value(*level.measured()).max())
