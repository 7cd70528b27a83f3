"""Random scores: the control that every other criterion must beat."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from rlprune.graph.structure import Graph
from rlprune.methods.criteria.base import Criterion, ScoringContext


@dataclass(frozen=True)
class Random(Criterion):
    """Uniform random scores, the same for the same seed: the control that every criterion must beat."""

    needs: ClassVar[tuple[str, ...]] = ()

    def score(self, module: nn.Module, graph: Graph, context: ScoringContext) -> np.ndarray:
        """See `Criterion.score`."""
        return np.random.default_rng(context.seed).random(int(graph.sizes.sum()))
