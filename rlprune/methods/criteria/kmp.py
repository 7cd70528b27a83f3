"""Koopman magnitude pruning (Redman et al., 2022, arXiv 2110.14856)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from rlprune.graph.structure import Graph
from rlprune.methods.criteria.base import Criterion, ScoringContext
from rlprune.methods.criteria.base_snapshots import Dynamics, Snapshots


@dataclass(frozen=True)
class KoopmanMagnitude(Criterion):
    """Magnitudes of the weights that the training converges to, by its linear dynamics; each layer scaled to mean 1.

    That is the mode of the eigenvalue nearest 1. Where the training has converged it is `l1`.

    Paper: Redman et al., An Operator Theoretic View on Pruning Deep Neural Networks, 2022, arXiv 2110.14856

    Claim: Once a network has converged its weights are ranked as by their magnitudes.

    Attributes:
        snapshots: folder of the weights on the way, such as `rlprune train --snapshots` writes it.
    """

    needs: ClassVar[tuple[str, ...]] = ("snapshots",)
    snapshots: str = ""

    def score(self, module: nn.Module, graph: Graph, context: ScoringContext) -> np.ndarray:
        """See `Criterion.score`; UserError where there are no snapshots of this network."""
        dynamics = Dynamics(Snapshots("kmp", self.snapshots), graph)
        return dynamics.scores(int(abs(dynamics.eigenvalues - 1).argmin()))
