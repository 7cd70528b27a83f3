"""Random plans around the uniform one, the control that EagleEye (Li et al., 2020, arXiv 2007.02491) showed to be hard.

Every group's keep ratio is that of the uniform plan times a log-normal number; the plan is projected onto the budget.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlprune.evaluation.metered import Allocation, AllocationProblem
from rlprune.methods.allocators.base import Allocator, around, rounds
from rlprune.methods.allocators.uniform import uniform

SIGMA = 0.5
BATCH = 16


@dataclass(frozen=True)
class RandomSearch(Allocator):
    """Random plans around the uniform one; the best one counts.

    Paper: Li et al., EagleEye, 2020, arXiv 2007.02491 (as the control that is hard to beat)
    """

    needs: ClassVar[tuple[str, ...]] = ()

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """See `Allocator.allocate`. Draw until the evaluations are spent; the best one counts."""
        rng = np.random.default_rng(problem.seed)
        problem.begin()
        start = uniform(problem.projector)
        problem(start)
        for _ in rounds(problem):
            problem.measure(around(problem.projector, start, rng.normal(0, SIGMA, (BATCH, len(start)))))
        return problem.allocation()
