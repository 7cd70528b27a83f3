"""Random mutations under the surrogate that agents learn from: a control that tells what a policy adds to a search."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlprune.agents.search.archive import PlanArchive, fit
from rlprune.agents.search.engine import PICKS, begin
from rlprune.agents.search.picks import batch
from rlprune.agents.search.rounds import ELITES, PATIENCE, ROLLOUTS, WALKS, one_thread, unknown
from rlprune.agents.search.setup import prepare_for
from rlprune.agents.search.surrogate import OneShotSurrogate
from rlprune.cost.budget import Budget
from rlprune.envs.decisions.base import make_decisions, measured_blocks
from rlprune.envs.episode import EpisodeSpec
from rlprune.evaluation.metered import Allocation, AllocationProblem
from rlprune.methods.allocators.base import Allocator
from rlprune.methods.allocators.base_plans import evaluations_before_search

MUTATIONS = (ROLLOUTS + 1) * WALKS
"""Plans a round among which the surrogate chooses: as many as an agent's walks."""
WIDTHS = (0.05, 0.15, 0.3)
"""Deviations of the logarithms by which a mutation's ratios differ from the parent's."""
TOUCHED = (0.2, 0.5, 1.0)
"""Shares of the groups that a mutation touches."""


@dataclass(frozen=True)
class Mutate(Allocator):
    """Random mutations of the best plans, chosen by the surrogate that agents learn from: the control without a policy.

    What `ppo-frozen` does better than this the form of the policy does.
    """

    needs: ClassVar[tuple[str, ...]] = ("sensitivities",)

    def evaluations_needed(self, groups: int, budget: Budget) -> int:
        """See `Allocator.evaluations_needed`."""
        return evaluations_before_search(groups, budget)

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """See `Allocator.allocate`. Begins as the agents do, and mutates until the evaluations are spent."""
        rng = np.random.default_rng(problem.seed)
        cost, named = problem.projector.cost, make_decisions(problem.decisions)
        # Blocks stay.
        decisions = [each for each in named if not measured_blocks([each], cost)]
        prepared, evaluations = prepare_for(problem, tuple(decisions))
        (spec,) = prepared.specs
        surrogate = OneShotSurrogate(spec.projector.sizes, prepared.sensitivity.predict, columns=spec.columns)
        archive, fruitless = PlanArchive(spec, problem.losses, surrogate), 0
        begin([archive], prepared.first, 1, evaluations, rng)
        while (left := evaluations - len(archive)) > 0 and fruitless < PATIENCE:
            with one_thread():
                fit([archive])
                plans = unknown(archive, mutations(spec, np.array(archive.counts)[archive.best(ELITES)], rng))
                chosen = batch(archive, plans, min(PICKS, left)) if len(plans) else []
            fruitless = 0 if chosen else fruitless + 1
            archive.add(chosen, left)
        return problem.allocation()


def mutations(spec: EpisodeSpec, parents: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(`MUTATIONS`, groups + columns) plans around (parents, groups + columns) ones, some near and some far."""
    drawn = parents[rng.integers(len(parents), size=MUTATIONS)]
    widths, shares = (rng.choice(values, (MUTATIONS, 1)) for values in (WIDTHS, TOUCHED))
    shape = MUTATIONS, len(spec.base)
    noise = rng.normal(0, 1, shape) * widths * (rng.random(shape) < shares)
    return spec.vary(spec.scaled(drawn, noise), rng)
