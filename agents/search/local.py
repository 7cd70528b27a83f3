"""The best plan that a given number of evaluations can tell, without a search."""

from collections.abc import Sequence

import numpy as np

from rlprune.envs.episode import EpisodeSpec
from rlprune.evaluation.evaluator import Evaluator
from rlprune.plans.counts import plan_key

SPREAD = 0.3
"""Deviation of the logarithms by which keep ratios around the best plan differ from its own."""
TOUCHED = 1 / 3
"""Fraction of the groups that differ."""
MISSES = 50
"""Known plans in a row after which there is nothing new around the best one."""


def refine(
    spec: EpisodeSpec, plans: Sequence[np.ndarray], evaluator: Evaluator, evaluations: int, seed: int
) -> np.ndarray:
    """Measure plans, then others around the best of them, for as long as evaluations are left.

    Args:
        spec: what counts.
        plans: (groups,) kept counts each; the first is the one to trust where nothing can be measured.
        evaluator: what it has seen costs nothing.
        evaluations: how many plans may be run.
        seed: of what is drawn.

    Returns:
        (groups,) kept counts: the first plan as long as its loss is not known, otherwise the best that was measured.
    """
    last = len(evaluator.seen) + evaluations

    def affordable(counts: np.ndarray) -> bool:
        return plan_key(counts) in evaluator.seen or len(evaluator.seen) < last

    def value(counts: np.ndarray) -> float:
        return float(spec.value(counts[None], np.array([evaluator(counts).loss]))[0])

    if not affordable(plans[0]):
        return plans[0]
    best, highest = max(
        ((counts, value(counts)) for counts in plans if affordable(counts)), key=lambda measured: measured[1]
    )
    rng, misses = np.random.default_rng(seed), 0
    while len(evaluator.seen) < last and misses < MISSES:
        trial = _around(spec, best, rng)
        misses = misses + 1 if plan_key(trial) in evaluator.seen else 0
        if not misses and (reached := value(trial)) > highest:
            best, highest = trial, reached
    return best


def _around(spec: EpisodeSpec, counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    groups = len(spec.base)
    touched = rng.random(groups) < TOUCHED
    wished = spec.scaled(counts, (rng.normal(0, SPREAD, groups) * touched)[None])
    varied: np.ndarray = spec.vary(wished, rng)[0]
    return varied
