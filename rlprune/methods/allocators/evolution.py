"""Evolution with (μ + λ) selection (Beyer and Schwefel, Evolution strategies, 2002) around the sensitivity rule's plan.

A genome holds the logarithm of every group's multiplier on the base plan. Tournaments choose two parents, every gene is
taken from one of them (uniform crossover), and Gaussian noise is added.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlprune.cost.budget import Budget
from rlprune.evaluation.metered import Allocation, AllocationProblem
from rlprune.methods.allocators.base import Allocator, around, rounds
from rlprune.methods.allocators.base_plans import base_plan, evaluations_before_search
from rlprune.methods.allocators.uniform import uniform

PARENTS = 12
CHILDREN = 12
TOURNAMENT = 3
SIGMA = 0.3


@dataclass(frozen=True)
class Evolution(Allocator):
    """Evolution with tournaments, uniform crossover and (μ + λ) selection around the sensitivity rule's plan.

    Paper: Beyer & Schwefel, Evolution Strategies: A Comprehensive Introduction, 2002
    """

    needs: ClassVar[tuple[str, ...]] = ("sensitivities",)

    def evaluations_needed(self, groups: int, budget: Budget) -> int:
        """See `Allocator.evaluations_needed`."""
        return evaluations_before_search(groups, budget)

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """See `Allocator.allocate`. Evolve until the evaluations are spent."""
        rng = np.random.default_rng(problem.seed)
        base = base_plan(problem)
        genomes = np.stack([np.zeros(len(base)), np.log(uniform(problem.projector) / base)])
        drawn = rng.normal(0, SIGMA, (PARENTS - len(genomes), len(base)))
        genomes, losses = _evaluated(problem, base, np.concatenate([genomes, drawn]))
        for _ in rounds(problem):
            children, found = _evaluated(problem, base, offspring(genomes, losses, rng))
            genomes, losses = np.concatenate([genomes, children]), np.concatenate([losses, found])
            best = np.argsort(losses, kind="stable")[:PARENTS]
            genomes, losses = genomes[best], losses[best]
        return problem.allocation()


def _evaluated(problem: AllocationProblem, base: np.ndarray, genomes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Genomes and their losses, as far as the evaluations go."""
    losses = problem.measure(around(problem.projector, base, genomes))
    return genomes[: len(losses)], losses


def offspring(genomes: np.ndarray, losses: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(`CHILDREN`, groups) new genomes from (parents, groups) genomes and their (parents,) losses."""
    rivals = rng.integers(len(genomes), size=(CHILDREN, 2, TOURNAMENT))
    winners = np.take_along_axis(rivals, losses[rivals].argmin(axis=2)[..., None], axis=2)[..., 0]
    mother, father = genomes[winners].swapaxes(0, 1)
    children = np.where(rng.random(mother.shape) < 0.5, mother, father)
    return children + rng.normal(0, SIGMA, children.shape) * (rng.random(children.shape) < 0.5)
