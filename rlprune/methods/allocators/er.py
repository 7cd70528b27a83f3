"""Erdős-Rényi densities: the fewer weights a layer has for its inputs and outputs, the more of them stay."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlprune.evaluation.metered import Allocation, AllocationProblem
from rlprune.methods.allocators.base import Allocator
from rlprune.methods.allocators.base_densities import layer_weights, random_graph_plan


@dataclass(frozen=True)
class ErdosRenyi(Allocator):
    """Layers keep weights in proportion to (inputs + outputs) / (inputs × outputs), and groups channels accordingly.

    Paper: Mocanu et al., Sparse Evolutionary Training, 2018, arXiv 1707.04780 (there for single weights)
    """

    needs: ClassVar[tuple[str, ...]] = ()

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """See `Allocator.allocate`; one evaluation."""
        graph = problem.workload.graph
        shapes = [tensor.shape[:2] for tensor in layer_weights(graph)]
        strengths = np.array([sum(shape) / np.prod(shape) for shape in shapes])
        problem.begin()
        problem(random_graph_plan(graph, strengths, problem.projector))
        return problem.allocation()
