"""Allocators decide how many channels every group keeps. What they share."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Protocol

import numpy as np

from rlprune.cost.budget import Budget
from rlprune.cost.projection import BudgetProjector
from rlprune.evaluation.metered import Allocation, AllocationProblem

PATIENCE = 20
"""Rounds without a new plan after which an allocator has nothing left to measure."""


class Allocator(Protocol):
    """Decides how many channels every group keeps; a frozen dataclass whose fields are its settings.

    Attributes:
        needs: what it asks for besides evaluations of plans inside the budget, in words.
        library: a library that it needs and the extra of rlprune that installs it.
        decides: whether it takes all decisions that are switched on, or channels alone.
    """

    needs: ClassVar[tuple[str, ...]]
    library: ClassVar[tuple[str, str] | None] = None
    decides: ClassVar[bool] = False

    @abstractmethod
    def allocate(self, problem: AllocationProblem) -> Allocation:
        """Ask for evaluations of plans until none is left, or until it knows no better.

        Args:
            problem: counts the evaluations; the best plan that it has seen is the result.
        """

    def check(self, problem: AllocationProblem) -> None:
        """Raise UserError where it does not apply to a network; asked of all methods before the first of them begins.

        Args:
            problem: the one that it will be given, or one like it.
        """

    def evaluations_needed(self, groups: int, budget: Budget) -> int:
        """How many evaluations it cannot do without.

        Args:
            groups: of the network.
            budget: what may be kept.
        """
        return 1


def rounds(problem: AllocationProblem) -> Iterator[None]:
    """As many rounds as there are evaluations left for them, and new plans to spend these on."""
    fruitless = 0
    while problem.left and fruitless < PATIENCE:
        before = problem.left
        yield
        fruitless = 0 if problem.left < before else fruitless + 1


def around(projector: BudgetProjector, base: np.ndarray, logs: np.ndarray) -> np.ndarray:
    """(plans, groups) logarithms of multipliers on (groups,) base counts -> the plans, projected onto the budget."""
    return projector.project(np.minimum(base * np.exp(logs), projector.sizes))
