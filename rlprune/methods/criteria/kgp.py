"""Koopman gradient pruning (Redman et al., 2022, arXiv 2110.14856)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from rlprune.errors import UserError
from rlprune.graph.structure import Graph
from rlprune.methods.criteria.base import Criterion, ScoringContext
from rlprune.methods.criteria.base_snapshots import Dynamics, Snapshots

SAME = 1e-9
"""Distance of eigenvalues that are one."""


@dataclass(frozen=True)
class KoopmanGradient(Criterion):
    """Magnitudes of the slowest change that dies out in a training, by its linear dynamics; layers scaled to mean 1.

    That is the mode of the largest eigenvalue below 1 beside the one that `kmp` takes. Late in a training the weights
    move along it, as along the gradient. The paper does not say which modes it sums up; this is the leading one.

    Paper: Redman et al., An Operator Theoretic View on Pruning Deep Neural Networks, 2022, arXiv 2110.14856

    Attributes:
        snapshots: folder of the weights on the way, such as `rlprune train --snapshots` writes it.
    """

    needs: ClassVar[tuple[str, ...]] = ("snapshots",)
    snapshots: str = ""

    def score(self, module: nn.Module, graph: Graph, context: ScoringContext) -> np.ndarray:
        """See `Criterion.score`; UserError where there are no snapshots of this network, or nothing dies out."""
        dynamics = Dynamics(Snapshots("kgp", self.snapshots), graph)
        values = dynamics.eigenvalues
        fixed = values[abs(values - 1).argmin()]
        # A complex eigenvalue comes with its conjugate, and both have the same magnitudes.
        others = (abs(values - fixed) > SAME) & (abs(values - fixed.conj()) > SAME) & (abs(values) < 1)
        if not others.any():
            raise UserError(
                f"criterion kgp: nothing dies out over the snapshots in {self.snapshots}: take snapshots of a whole "
                "training, or kmp"
            )
        return dynamics.scores(int(np.where(others, abs(values), -1).argmax()))
