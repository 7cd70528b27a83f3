"""The search: from a few plans to start from, round by round, to the best plan and the agent that found it.

What is measured is the one-shot loss. With tunings, the same goes on afterwards with what fine-tuning leaves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger, configure

from rlprune.agents.agents import make_agent
from rlprune.agents.level import Level, Target
from rlprune.agents.reward_model import RewardModel
from rlprune.agents.rounds import draw_to_the_best, dreams, improve, scouts, steps_of
from rlprune.agents.tunings import FIRST_SHARE, Over, Tuning, tuned

PICKS = 8
"""Plans measured a round, of all networks and budgets together, but two of each at least."""
SCOUTS = 12
"""Plans around the base plans of a network that are measured before the first round, of all budgets together."""
CHECKS = (0.4, 0.7, 0.9)
"""Shares of the evaluations after which a forecast cost is compared with the truth of the best plan."""


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
    learner = make_agent(agent, dreams(levels), steps_of(levels), seed)
    # One logger for all rounds; left to itself every round would open a file of its own.
    learner.set_logger(configure(str(log / agent), ["tensorboard"]) if log else Logger(None, []))
    starts = [plans for target in targets for plans in target.starts or [()] * len(target.tasks)]
    _begin(levels, starts, len(targets), evaluations, rng)
    share = FIRST_SHARE if tuning else 1.0
    for part in CHECKS if any(target.correct for target in targets) else ():
        improve(learner, levels, PICKS, int(part * evaluations), rng, lambda: over(share))
        if not over(share):
            _correct(learner, targets, levels, evaluations)
    improve(learner, levels, PICKS, evaluations, rng, lambda: over(share))
    if tuning:
        plan, loss = tuned(learner, levels[0], tuning, rng, over)
        return SearchResult([plan], [loss], learner)
    draw_to_the_best(learner, levels)
    ends = [int(level.best(1)[0]) for level in levels]
    counts = [level.counts[end] for level, end in zip(levels, ends, strict=True)]
    return SearchResult(counts, [level.losses[end] for level, end in zip(levels, ends, strict=True)], learner)


def _levels(target: Target) -> list[Level]:
    model = RewardModel(target.tasks[0].lander.sizes, target.foretell)
    return [Level(task, target.measure, model, place) for place, task in enumerate(target.tasks)]


def _correct(learner: BaseAlgorithm, targets: Sequence[Target], levels: list[Level], evaluations: int) -> None:
    """Compare forecast costs with the truth; a search drifts to where these are too low."""
    for target, level in zip(targets, levels, strict=True):
        left = evaluations - sum(map(len, levels))
        if target.correct is not None and left > 0:
            level.land(target.correct(level.counts[level.best(1)[0]]), left)
    learner.set_env(dreams(levels))


def _begin(
    levels: list[Level],
    starts: Sequence[Sequence[np.ndarray]],
    networks: int,
    evaluations: int,
    rng: np.random.Generator,
) -> None:
    """Measure the plans that are given, then some around the base plans."""
    each = -(-min(SCOUTS * networks, max(evaluations // 6, 4 * networks)) // len(levels))
    around = [scouts(level.task, rng, each) for level in levels]
    for plans in (starts, around):
        for level, mine in zip(levels, plans, strict=True):
            level.add(list(mine), evaluations - sum(map(len, levels)))
