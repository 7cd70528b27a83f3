"""Erdős-Rényi-Kernel densities: as the Erdős-Rényi ones, with the sides of the kernels among the dimensions."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlprune.evaluation.metered import Allocation, AllocationProblem
from rlprune.graph.structure import Graph
from rlprune.methods.allocators.base import Allocator
from rlprune.methods.allocators.base_densities import layer_weights, random_graph_plan


@dataclass(frozen=True)
class ErdosRenyiKernel(Allocator):
    """Layers keep weights in proportion to the sum of their dimensions over its product, groups channels accordingly.

    Paper: Evci et al., Rigging the Lottery, 2020, arXiv 1911.11134 (there for single weights)
    """

    needs: ClassVar[tuple[str, ...]] = ()

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """See `Allocator.allocate`; one evaluation."""
        graph = problem.workload.graph
        problem.begin()
        problem(random_graph_plan(graph, kernel_strengths(graph), problem.projector))
        return problem.allocation()


def kernel_strengths(graph: Graph) -> np.ndarray:
    """(layers,) sum over product of the dimensions of every layer's weight, the kernel's among them."""
    return np.array([sum(tensor.shape) / np.prod(tensor.shape) for tensor in layer_weights(graph)])
