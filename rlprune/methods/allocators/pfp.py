"""As many channels for every group as one relative error of what is computed, the same for all, asks for."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import nn

from rlprune.evaluation.metered import Allocation, AllocationProblem
from rlprune.graph.structure import Graph
from rlprune.methods.allocators.base import Allocator
from rlprune.methods.allocators.base_scale import largest_plan

K, C, DELTA = 3, 3, 1e-16
"""Constants of the bound, as the paper's authors set them: of the tails that it allows, and how likely it may fail."""


@dataclass(frozen=True)
class ProvableFilterPruning(Allocator):
    """One relative error ε, found by bisection: a group keeps what so many draws as its bound asks for bring.

    Channels are drawn in proportion to their greatest relative contributions, those of criterion pfp on the calibration
    images, and the mean number of different ones is kept. Which ones stay is what `--criterion` says.

    Paper: Liebenwein et al., Provable Filter Pruning for Efficient Neural Networks, 2020, arXiv 1911.07412
    """

    needs: ClassVar[tuple[str, ...]] = ("images",)

    def check(self, problem: AllocationProblem) -> None:
        """See `Allocator.check`."""
        problem.scores_by("pfp")

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """See `Allocator.allocate`; one evaluation."""
        graph = problem.workload.graph
        contributions = graph.split(problem.scores_by("pfp"))
        difficulties = difficulty(problem.workload.module, graph)

        def wished(accuracy: float) -> np.ndarray:
            wanted = draws(np.exp(-accuracy), difficulties, np.array([piece.sum() for piece in contributions]))
            return np.array([different(piece, count) for piece, count in zip(contributions, wanted, strict=True)])

        problem.begin()
        # From errors that a single draw is good for to those that ask for every channel that contributes.
        problem(largest_plan(problem.projector, wished, -20, 20))
        return problem.allocation()


def difficulty(module: nn.Module, graph: Graph) -> np.ndarray:
    """(groups,) the factor α of the bound; it grows slowly with the sums that the layers which read a group make.

    Args:
        module: the network.
        graph: its structure.
    """

    def of(layer: str) -> float:
        part: Any = module.get_submodule(layer)
        kernel = np.prod(getattr(part, "kernel_size", 1))
        return float(2 * C * np.log(8 * (graph.layers[layer] + 1) * kernel / DELTA))

    readers = [[layer for layer in group.consumers if layer in graph.layers] for group in graph.groups]
    return np.array([max(map(of, layers)) for layers in readers])


def draws(error: float, difficulties: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """(groups,) draws that the bound asks for at a relative error, with the sums of the contributions."""
    return np.ceil(K * (6 + 2 * error) * difficulties * sums / error**2)


def different(contributions: np.ndarray, count: float) -> float:
    """How many different channels so many draws bring on average, at least 1."""
    odds = contributions / max(contributions.sum(), 1e-30)
    return max(float((1 - (1 - odds) ** count).sum()), 1.0)
