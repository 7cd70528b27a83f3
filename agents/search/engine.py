"""The search: from a few plans to start from, round by round, to the best plan and the agent that found it.

What is measured is the one-shot loss. With tunings, the same goes on afterwards with what fine-tuning leaves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger, configure
from stable_baselines3.common.vec_env import VecEnv

from rlprune.agents.search.archive import PlanArchive, Target, steps_of
from rlprune.agents.search.exploration import explore
from rlprune.agents.search.memory import forget, remember_plans
from rlprune.agents.search.multi_fidelity import FIRST_SHARE, Over, Tuning, tuned
from rlprune.agents.search.rounds import imagined_episodes, imitate_elites, improve, perturbed_plans
from rlprune.agents.search.surrogate import OneShotSurrogate

PICKS = 8
"""Plans measured a round, of all networks and budgets together, but two of each at least."""
PERTURBED = 12
"""Plans around the base plans of a network that are measured before the first round, of all budgets together."""
CHECKS = (0.4, 0.7, 0.9)
"""Shares of the evaluations after which a forecast cost is compared with the truth of the best plan."""


class AgentBuilder(Protocol):
    """Makes the agent that walks the imagined episodes."""

    def make(self, env: VecEnv, episode: int, seed: int) -> BaseAlgorithm:
        """An agent whose first policy is the base plan itself, with a little noise around it."""


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


def search(
    targets: Sequence[Target],
    evaluations: int,
    agent: AgentBuilder,
    seed: int = 0,
    log: Path | None = None,
    tuning: Tuning | None = None,
    over: Over = lambda share: False,
) -> SearchResult:
    """Search for the plan with the highest value, or for one of every network under every budget with a single policy.

    Args:
        targets: the networks.
        evaluations: how many plans may be measured, of all networks together.
        agent: makes the Stable-Baselines3 agent, see `rlprune.agents.algorithms.base.Agent`.
        seed: of everything drawn here.
        log: folder of its own for TensorBoard, or None.
        tuning: with it, the search goes on with losses after brief fine-tunings; for one network under one budget.
        over: asked before every round.

    Returns:
        The best measured plans and the trained agent, which was drawn to them in the end.
    """
    rng = np.random.default_rng(seed)
    archives = [archive for target in targets for archive in _archives(target)]
    learner = agent.make(imagined_episodes(archives), steps_of(archives), seed)
    remember_plans(learner)
    # One logger for all rounds; left to itself every round would open a file of its own.
    learner.set_logger(configure(str(log), ["tensorboard"]) if log else Logger(None, []))
    starts = [plans for target in targets for plans in target.starts or [()] * len(target.specs)]
    begin(archives, starts, len(targets), evaluations, rng)
    share = FIRST_SHARE if tuning else 1.0
    for part in CHECKS if any(target.correct for target in targets) else ():
        improve(learner, archives, PICKS, int(part * evaluations), rng, lambda: over(share))
        if not over(share):
            _correct(learner, targets, archives, evaluations)
    improve(learner, archives, PICKS, evaluations, rng, lambda: over(share))
    if tuning:
        plan, loss = tuned(learner, archives[0], tuning, rng, over)
        return SearchResult([plan], [loss], learner)
    imitate_elites(learner, archives)
    ends = [int(archive.best(1)[0]) for archive in archives]
    counts = [archive.counts[end] for archive, end in zip(archives, ends, strict=True)]
    return SearchResult(counts, [archive.losses[end] for archive, end in zip(archives, ends, strict=True)], learner)


def _archives(target: Target) -> list[PlanArchive]:
    spec = target.specs[0]
    model = OneShotSurrogate(spec.projector.sizes, target.foretell, spec.removable, spec.columns)
    return [PlanArchive(spec, target.measure, model, place) for place, spec in enumerate(target.specs)]


def _correct(learner: BaseAlgorithm, targets: Sequence[Target], archives: list[PlanArchive], evaluations: int) -> None:
    """Compare forecast costs with the truth; a search drifts to where these are too low."""
    for target, archive in zip(targets, archives, strict=True):
        left = evaluations - sum(map(len, archives))
        if target.correct is not None and left > 0:
            archive.project(target.correct(archive.counts[archive.best(1)[0]]), left)
    learner.set_env(imagined_episodes(archives))
    forget(learner, archives)
    explore(learner)


def begin(
    archives: list[PlanArchive],
    starts: Sequence[Sequence[np.ndarray]],
    networks: int,
    evaluations: int,
    rng: np.random.Generator,
) -> None:
    """Measure the plans that are given, then some around the base plans.

    Args:
        archives: of all networks and budgets.
        starts: plans for each of them.
        networks: how many.
        evaluations: of the whole search.
        rng: of what is drawn.
    """
    each = -(-min(PERTURBED * networks, max(evaluations // 6, 4 * networks)) // len(archives))
    around = [perturbed_plans(archive.spec, rng, each) for archive in archives]
    for plans in (starts, around):
        for archive, mine in zip(archives, plans, strict=True):
            archive.add(list(mine), evaluations - sum(map(len, archives)))
