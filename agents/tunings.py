"""Where a search goes on with what fine-tuning leaves: after brief ones, then after longer ones of fewer plans.

That is closer to what counts in the end than a one-shot loss, and a hundred times as dear.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm

from rlprune.agents.level import Level, Measure, fit
from rlprune.agents.reward_model import Measured
from rlprune.agents.rounds import draw_to_the_best, dreams, improve, one_thread, scouts
from rlprune.agents.tuned_model import TunedModel
from rlprune.envs.walk import Task
from rlprune.tuner import FEWER

PICKS = 4
"""Plans tuned a round."""
LEAST = 2
"""Plans tuned whatever the time, the base plan and the next: one alone would leave no choice."""
SCOUTS = 8
"""Plans around the base plan and the uniform one that are tuned before the first round."""
BEST = 2
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


def tuned(
    learner: BaseAlgorithm, cheap: Level, tuning: Tuning, rng: np.random.Generator, over: Over
) -> tuple[np.ndarray, float]:
    """Go on where one-shot losses have led to, with losses after brief tunings, then with longer ones of fewer plans.

    Of those that are tuned for longer a third were the best before; what these teach says which the others are.

    Args:
        learner: the agent, which is drawn to the best plans.
        cheap: what was measured before any tuning.
        tuning: how plans are tuned.
        rng: of everything drawn here.
        over: asked before every round.

    Returns:
        (groups,) the plan that is expected to be the best after the longest tuning, and its loss after that.
    """
    _learn([cheap])
    task, oneshot = cheap.task, cheap.model.mean
    starts = _landed(task, tuning.starts)
    best = [cheap.counts[place] for place in cheap.best(BEST)]
    around = [scout for start in starts for scout in scouts(task, rng, SCOUTS // 2, 0.5, start)]
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
    draw_to_the_best(learner, [level])
    end = int(np.argmax(_expected(level)))
    return level.counts[end], level.losses[end]


def _tune(
    learner: BaseAlgorithm,
    level: Level,
    plans: Sequence[np.ndarray],
    number: int,
    rng: np.random.Generator,
    over: Callable[[], bool],
) -> None:
    """Tune given plans, the base plan first, and then those that the agent imagines with what these teach."""
    level.add(plans[:LEAST], number)
    level.task = replace(level.task, base_value=float(level.values()[0]))
    for place in range(LEAST, len(plans), PICKS):
        if not over():
            level.add(plans[place : place + PICKS], number - len(level))
    learner.set_env(dreams([level]))
    improve(learner, [level], PICKS, number, rng, over)
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
