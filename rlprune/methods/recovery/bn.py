"""Batch norm gets the statistics of the smaller network (Li et al., EagleEye, 2020, arXiv 2007.02491)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from rlprune.evaluation.sliced import recalibrate
from rlprune.methods.recovery.base import Cut, Recovery, RepairContext


@dataclass(frozen=True)
class BatchNorm(Recovery):
    """Means and variances of all batch norms are measured anew on the calibration images.

    It comes last, for everything else changes them. A network without batch norm is left as it is.

    Paper: Li et al., EagleEye: Fast Sub-net Evaluation for Efficient Neural Network Pruning, 2020, arXiv 2007.02491
    """

    needs: ClassVar[tuple[str, ...]] = ("batch norm", "images")
    rank: ClassVar[int] = 4

    def apply(self, module: nn.Module, cut: Cut, context: RepairContext) -> nn.Module:
        """See `Recovery.apply`."""
        recalibrate(module, context.images)
        return module
