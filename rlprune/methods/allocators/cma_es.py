"""CMA-ES (Hansen, The CMA evolution strategy: a tutorial, 2016, arXiv 1604.00772) around the sensitivity rule's plan.

What it moves are the logarithms of every group's multiplier on the base plan; the projection takes care of the budget.
"""

import math
import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlprune.cost.budget import Budget
from rlprune.evaluation.metered import Allocation, AllocationProblem
from rlprune.methods.allocators.base import Allocator, around
from rlprune.methods.allocators.base_plans import base_plan, evaluations_before_search

SIGMA = 0.3


@dataclass(frozen=True)
class CmaEs(Allocator):
    """Covariance matrix adaptation around the sensitivity rule's plan.

    Paper: Hansen, The CMA Evolution Strategy: A Tutorial, 2016, arXiv 1604.00772
    """

    needs: ClassVar[tuple[str, ...]] = ("sensitivities",)
    library: ClassVar[tuple[str, str] | None] = ("cma", "compare")

    def evaluations_needed(self, groups: int, budget: Budget) -> int:
        """See `Allocator.evaluations_needed`."""
        return evaluations_before_search(groups, budget)

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """See `Allocator.allocate`; where it converges before all is spent, it starts again with other draws."""
        rng = np.random.default_rng(problem.seed)
        base = base_plan(problem)
        left = problem.evaluations
        while 0 < problem.left < left:
            left = problem.left
            _descend(problem, base, rng)
        return problem.allocation()


def _descend(problem: AllocationProblem, base: np.ndarray, rng: np.random.Generator) -> None:
    with warnings.catch_warnings():
        # Where there is no matplotlib, it warns that it cannot draw, which nobody asks of it.
        warnings.simplefilter("ignore", UserWarning)
        import cma

    # Numbers of its own instead of NumPy's global ones, which then need no seed.
    options = {"randn": lambda *shape: rng.standard_normal(shape), "seed": math.nan, "verbose": -9, "verb_log": 0}
    strategy = cma.CMAEvolutionStrategy(np.zeros(len(base)), SIGMA, options)
    while not strategy.stop():
        logs = strategy.ask()
        losses = problem.measure(around(problem.projector, base, np.array(logs)))
        if len(losses) < len(logs):
            return
        strategy.tell(logs, losses.tolist())
