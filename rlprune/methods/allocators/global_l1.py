"""One threshold on the importance of the channels of all groups: the weakest go, wherever they are.

Network slimming (Liu et al., 2017, arXiv 1708.06519, section 3) cuts at one global percentile. Scores of different
layers are made comparable by dividing them by their group's mean, as DepGraph does (Fang et al., 2023, arXiv
2301.12900; the default of its library torch-pruning).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlprune.cost.projection import BudgetProjector
from rlprune.evaluation.metered import Allocation, AllocationProblem
from rlprune.graph.structure import Graph
from rlprune.methods.allocators.base import Allocator
from rlprune.methods.allocators.base_threshold import threshold_plan


@dataclass(frozen=True)
class GlobalThreshold(Allocator):
    """One threshold on the scores of all channels, each relative to the mean of its group: the weakest go.

    Paper: Liu et al., Network Slimming, 2017, arXiv 1708.06519; Fang et al., DepGraph, 2023, arXiv 2301.12900
    """

    needs: ClassVar[tuple[str, ...]] = ("scores",)

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """See `Allocator.allocate`; one evaluation."""
        problem.begin()
        problem(one_threshold(problem.workload.graph, problem.scores, problem.projector))
        return problem.allocation()


def one_threshold(graph: Graph, scores: np.ndarray, projector: BudgetProjector) -> np.ndarray:
    """The plan of the lowest threshold that is inside the budget; what is left is filled up.

    Args:
        graph: structure of the network.
        scores: (all groups' channels,) from a criterion, at least 0.
        projector: cost and budget.

    Returns:
        (groups,) kept counts.
    """
    return threshold_plan([piece / max(float(piece.mean()), 1e-12) for piece in graph.split(scores)], projector)
