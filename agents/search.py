"""The search: imagine thousands of walks, measure the few most promising plans, learn, repeat."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger, configure

from rlprune.agents.agents import make_agent
from rlprune.agents.imitation import imitate
from rlprune.agents.reward_model import Measured, RewardModel
from rlprune.agents.rollout import greedy, rollout
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


class Level:
    """One budget of a search: every plan that was measured or imagined under it.

    Args:
        task: what counts.
        measure: (groups,) kept counts -> loss; the expensive part.
    """

    def __init__(self, task: Task, measure: Callable[[np.ndarray], float]) -> None:
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

    def add(self, counts: np.ndarray) -> None:
        """Measure a plan unless it is known."""
        if counts not in self:
            self._seen.add(counts.tobytes())
            self.losses.append(self.measure(counts))
            self.counts.append(counts)

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
class SearchResult:
    """The best plan of every budget, their losses, and the one agent that found them."""

    counts: list[np.ndarray]
    losses: list[float]
    agent: BaseAlgorithm


def search(
    tasks: Sequence[Task],
    measure: Callable[[np.ndarray], float],
    evaluations: int,
    foretell: Callable[[np.ndarray], np.ndarray],
    agent: str = "ppo",
    seed: int = 0,
    starts: Sequence[Sequence[np.ndarray]] = (),
    log: Path | None = None,
) -> SearchResult:
    """Search for the plan with the highest value, or for one under every budget with a single policy.

    Args:
        tasks: what is walked and what counts; one a budget.
        measure: (groups,) kept counts -> loss on the search split.
        evaluations: how many plans may be measured.
        foretell: the additive model, (plans, groups) keep ratios -> (plans,) rises of the loss.
        agent: name of the Stable-Baselines3 agent.
        seed: of everything drawn here.
        starts: for every task (groups,) plans that are measured first.
        log: folder for TensorBoard, or None.

    Returns:
        The best measured plans and the trained agent, which was drawn to them in the end.
    """
    rng = np.random.default_rng(seed)
    levels = [Level(task, measure) for task in tasks]
    model = RewardModel(tasks[0].lander.sizes, foretell)
    scores = [level.dreaming(partial(model.mean, budget=place)) for place, level in enumerate(levels)]
    walks = max(WALKS // len(tasks) // 4, 1) * 4
    learner = make_agent(agent, WalkVecEnv(tasks, scores, walks), len(tasks[0].base), seed)
    # One logger for all rounds; left to itself every round would open a file of its own.
    learner.set_logger(configure(str(log / agent), ["tensorboard"]) if log else Logger(None, []))
    _begin(levels, starts, evaluations, rng)
    fruitless = 0
    while (left := evaluations - sum(map(len, levels))) > 0 and fruitless < PATIENCE:
        with one_thread():
            model.fit([level.measured() for level in levels])
            _draw_to_the_best(learner, levels)
            learner.learn(ROLLOUTS * walks * len(tasks) * len(tasks[0].base), reset_num_timesteps=False)
            picks = _promising(learner, levels, model, left, rng)
        fruitless = 0 if picks else fruitless + 1
        for level, plan in picks:
            level.add(plan)
        learner.logger.record("search/evaluations", sum(map(len, levels)))
        learner.logger.record("search/best_value", float(np.mean([_best_value(level) for level in levels])))
    _draw_to_the_best(learner, levels)
    ends = [int(level.best(1)[0]) for level in levels]
    counts = [level.counts[end] for level, end in zip(levels, ends, strict=True)]
    return SearchResult(counts, [level.losses[end] for level, end in zip(levels, ends, strict=True)], learner)


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
            for plan in mine:
                if sum(map(len, levels)) < evaluations:
                    level.add(plan)


def _scouts(task: Task, rng: np.random.Generator, number: int, width: float = 0.35) -> np.ndarray:
    """Plans around the base plan, drawn wide enough for the reward model to see which groups matter."""
    noise = rng.normal(0, width * task.reach, (number, len(task.base)))
    return task.finish(np.minimum(task.base * np.exp(noise), task.lander.sizes))


def _draw_to_the_best(learner: BaseAlgorithm, levels: list[Level]) -> None:
    imitate(learner, [(level.task, np.array(level.counts)[level.best(ELITES)]) for level in levels])


def _promising(
    learner: BaseAlgorithm, levels: list[Level], model: RewardModel, left: int, rng: np.random.Generator
) -> list[tuple[Level, np.ndarray]]:
    """The plans to measure: of those imagined the best by more and more optimistic forecasts, none that is known."""
    picks: list[tuple[Level, np.ndarray]] = []
    for place, level in enumerate(levels):
        number = min(max(PICKS // len(levels), 2), left - len(picks))
        level.imagined.append(_careful(learner, level.task, rng))
        plans = _unknown(level)
        # An agent that has settled repeats itself; then look around, farther than in the beginning.
        plans = plans if len(plans) else _unknown(level, _scouts(level.task, rng, WALKS, 1.0))
        level.imagined.clear()
        if not len(plans):
            continue
        mean, doubt = model.predict(plans, place)
        picks += [(level, plans[pick]) for pick in _optimistic(level.task, plans, mean, doubt, number)]
    return picks


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
