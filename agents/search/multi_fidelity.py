"""Where a search goes on with what fine-tuning leaves: after brief ones, then after longer ones of fewer plans.

That is closer to what counts in the end than a one-shot loss, and a hundred times as dear.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm

from rlprune.agents.search.archive import Measure, PlanArchive, fit
from rlprune.agents.search.exploration import explore
from rlprune.agents.search.fidelity_surrogate import FidelitySurrogate
from rlprune.agents.search.picks import are_twins
from rlprune.agents.search.rounds import imagined_episodes, imitate_elites, improve, one_thread, perturbed_plans
from rlprune.agents.search.surrogate import Measured
from rlprune.envs.episode import EpisodeSpec
from rlprune.evaluation.finetuned import FEWER

PICKS = 4
"""Plans tuned a round."""
LEAST = 2
"""Plans tuned whatever the time, the base plan and the next: one alone would leave no choice."""
PERTURBED = 8
"""Plans around the base plan and the uniform one that are tuned before the first round."""
BEST = 2
"""Plans with the lowest one-shot losses that are tuned before the first round."""
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
    learner: BaseAlgorithm, cheap: PlanArchive, tuning: Tuning, rng: np.random.Generator, over: Over
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
    spec, oneshot = cheap.spec, cheap.model.mean
    starts = _landed(spec, tuning.starts)
    best = [cheap.counts[place] for place in cheap.best(BEST)]
    around = [scout for start in starts for scout in perturbed_plans(spec, rng, PERTURBED // 2, 0.5, start)]
    plans, number, brief = [*starts, *best, *around], tuning.number, list[Measured]()
    # Every length takes twice as long as the one before.
    weights = np.cumsum(2.0 ** np.arange(len(tuning.measures)))
    for measure, end in zip(tuning.measures, FIRST_SHARE + (1 - FIRST_SHARE) * weights / weights[-1], strict=True):
        model = FidelitySurrogate(spec.projector.sizes, oneshot, next(iter(brief), None), spec.removable, spec.columns)
        archive = PlanArchive(spec, measure, model)
        _tune(learner, archive, plans, number, rng, partial(over, end))
        number = len(archive) // FEWER
        if number < 2:
            break
        plans, brief = [starts[0], *_different(archive)[: -(-number // 3)]], [archive.measured()]
    imitate_elites(learner, [archive])
    end = int(np.argmax(_expected(archive)))
    return archive.counts[end], archive.losses[end]


def _tune(
    learner: BaseAlgorithm,
    archive: PlanArchive,
    plans: Sequence[np.ndarray],
    number: int,
    rng: np.random.Generator,
    over: Callable[[], bool],
) -> None:
    """Tune given plans, the base plan first, and then those that the agent imagines with what these teach."""
    archive.add(plans[:LEAST], number)
    archive.spec = replace(archive.spec, base_value=float(archive.values()[0]))
    for place in range(LEAST, len(plans), PICKS):
        if not over():
            archive.add(plans[place : place + PICKS], number - len(archive))
    learner.set_env(imagined_episodes([archive]))
    explore(learner)
    improve(learner, [archive], PICKS, number, rng, over)
    _learn([archive])


@one_thread()
def _learn(archives: Sequence[PlanArchive]) -> None:
    fit(archives)


def _different(archive: PlanArchive) -> list[np.ndarray]:
    """The plans of an archive from the one that is expected to be the best on, without near twins of better ones: they
    teach no more."""
    chosen: list[np.ndarray] = []
    for place in np.argsort(-_expected(archive)):
        counts = archive.counts[place]
        if not chosen or not are_twins(counts[None], np.array(chosen), len(archive.spec.base)).any():
            chosen.append(counts)
    return chosen


@one_thread()
def _expected(archive: PlanArchive) -> np.ndarray:
    """(plans,) what the plans of an archive are worth: the lowest of many noisy losses is too good to be true, what the
    model makes of it is fairer."""
    plans = np.array(archive.counts)
    return archive.spec.value(plans, archive.model.mean(plans))


def _landed(spec: EpisodeSpec, plans: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The same plans, projected anew where a corrected cost no longer admits them."""
    fit = spec.projector.fits(np.array(plans))
    anew = spec.finish(np.array(plans, dtype=float))
    return [plan if fits else projected for plan, fits, projected in zip(plans, fit, anew, strict=True)]
