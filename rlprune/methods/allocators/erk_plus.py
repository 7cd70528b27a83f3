"""Erdős-Rényi-Kernel densities with a dense last layer."""

from dataclasses import dataclass
from typing import ClassVar

from rlprune.evaluation.metered import Allocation, AllocationProblem
from rlprune.methods.allocators.base import Allocator
from rlprune.methods.allocators.base_densities import groups_read_last, random_graph_plan
from rlprune.methods.allocators.erk import kernel_strengths


@dataclass(frozen=True)
class ErdosRenyiKernelPlus(Allocator):
    """As `erk`, but all that the last layer reads stays, if the budget allows it: so that layer keeps all its weights.

    Paper: Liu et al., The Unreasonable Effectiveness of Random Pruning, 2022, arXiv 2202.02643 (ERK+, for weights)

    Claim: A Wide ResNet-50 with a random fifth of its weights, trained, is better than the dense one on ImageNet.
    """

    needs: ClassVar[tuple[str, ...]] = ()

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """See `Allocator.allocate`; one evaluation."""
        graph = problem.workload.graph
        problem.begin()
        problem(random_graph_plan(graph, kernel_strengths(graph), problem.projector, groups_read_last(graph)))
        return problem.allocation()
