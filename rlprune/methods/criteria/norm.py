"""Norm of any order of the filters (He et al., Soft Filter Pruning, 2018, arXiv 1808.06866)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from rlprune.errors import UserError
from rlprune.graph.structure import Graph
from rlprune.methods.criteria.base import Criterion, ScoringContext, filter_norms


@dataclass(frozen=True)
class Norm(Criterion):
    """Sum over a group's producing layers of ‖filter‖ₚ for any p, each layer scaled to mean 1.

    Paper: He et al., Soft Filter Pruning, 2018, arXiv 1808.06866

    Attributes:
        p: order of the norm, above 0; ``inf`` is the largest weight.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    p: float = 2.0

    def __post_init__(self) -> None:
        """Raise UserError unless there is such a norm."""
        if not self.p > 0:
            raise UserError(f"criterion norm:p={self.p:g}: expected p above 0, such as 1, 2 or inf")

    def score(self, module: nn.Module, graph: Graph, context: ScoringContext) -> np.ndarray:
        """See `Criterion.score`."""
        return filter_norms(module, graph, self.p)
