"""The same keep ratio everywhere: the control that every search must beat."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlprune.cost.projection import BudgetProjector
from rlprune.evaluation.metered import Allocation, AllocationProblem
from rlprune.methods.allocators.base import Allocator


@dataclass(frozen=True)
class Uniform(Allocator):
    """The same keep ratio everywhere: the control that every search must beat."""

    needs: ClassVar[tuple[str, ...]] = ()

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """See `Allocator.allocate`; one evaluation."""
        problem.begin()
        problem(uniform(problem.projector))
        return problem.allocation()


def uniform(projector: BudgetProjector) -> np.ndarray:
    """(groups,) kept counts: the largest plan inside the budget with one keep ratio for all groups."""
    return projector.project(projector.sizes[None].astype(float))[0]
