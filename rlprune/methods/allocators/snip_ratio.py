"""As many channels for every group as connection sensitivity gives it."""

from dataclasses import dataclass
from typing import ClassVar

from rlprune.evaluation.metered import Allocation, AllocationProblem
from rlprune.methods.allocators.base import Allocator
from rlprune.methods.allocators.base_threshold import threshold_plan


@dataclass(frozen=True)
class SnipRatio(Allocator):
    """One threshold on the sums of |w g| over the weights of a channel, of which only the counts are taken.

    The sums are those of criterion snip on the calibration images, and are compared over the whole network as they
    are; the paper compares single weights, and takes how many each layer keeps. Which channels stay is what
    `--criterion` says.

    Paper: Liu et al., The Unreasonable Effectiveness of Random Pruning, 2022, arXiv 2202.02643 (SNIP ratio, for
    weights); Lee et al., SNIP, 2019, arXiv 1810.02340
    """

    needs: ClassVar[tuple[str, ...]] = ("labels", "gradients")

    def check(self, problem: AllocationProblem) -> None:
        """See `Allocator.check`."""
        problem.scores_by("snip")

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """See `Allocator.allocate`; one evaluation."""
        sensitivities = problem.workload.graph.split(problem.scores_by("snip"))
        problem.begin()
        problem(threshold_plan(sensitivities, problem.projector))
        return problem.allocation()
