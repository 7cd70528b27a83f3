"""One channel after another, wherever it is: the one that matters least for what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlprune.cost.projection import BudgetProjector
from rlprune.evaluation.metered import Allocation, AllocationProblem
from rlprune.methods.allocators.base import Allocator


@dataclass(frozen=True)
class FisherGlobal(Allocator):
    """The channel with the least Fisher information over its cost goes, and the next, until the budget is met.

    What a channel costs follows from what is left at the time. Its information, that of criterion group-fisher on the
    calibration images, is computed once of the dense network, where the paper trains on and adds it up anew after every
    channel. Which channels stay is what `--criterion` says.

    Paper: Liu et al., Group Fisher Pruning for Practical Network Compression, 2021, arXiv 2108.00708
    """

    needs: ClassVar[tuple[str, ...]] = ("labels", "gradients")

    def check(self, problem: AllocationProblem) -> None:
        """See `Allocator.check`."""
        problem.scores_by("group-fisher")

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """See `Allocator.allocate`; one evaluation."""
        information = problem.workload.graph.split(problem.scores_by("group-fisher"))
        problem.begin()
        problem(one_after_another(information, problem.projector))
        return problem.allocation()


def one_after_another(pieces: Sequence[np.ndarray], projector: BudgetProjector) -> np.ndarray:
    """The plan that is left when the channel with the lowest score over its cost goes until the budget is met.

    Where counts are multiples of a number, as many channels go at once. A channel costs what it takes of the resources
    whose bounds are exceeded, in parts of these bounds.

    Args:
        pieces: for every group (channels,) scores, at least 0.
        projector: cost and budget.

    Returns:
        (groups,) kept counts; what the last step saved too much is filled up.
    """
    cost, limits = projector.cost, projector.budget.fractions(projector.cost.resources)
    allowed = [projector.allowed(group) for group in range(len(pieces))]
    # What has gone of a group when it keeps each of these, and what the next step takes; there is none below the least.
    gone = [
        np.append(0, np.sort(piece).cumsum())[len(piece) - kept] for piece, kept in zip(pieces, allowed, strict=True)
    ]
    damages = [np.append(np.inf, -np.diff(lost)) for lost in gone]
    places = np.array([len(kept) - 1 for kept in allowed])
    groups = np.arange(len(places))

    def counts(places: np.ndarray) -> np.ndarray:
        return np.array([kept[place] for kept, place in zip(allowed, places, strict=True)])

    while (over := cost.ratios(now := counts(places)) > limits).any():
        below = counts(np.maximum(places - 1, 0))
        trial = np.tile(now, (len(now), 1))
        trial[groups, groups] = below
        saved = ((cost.ratios(now) - cost.ratios(trial)) / limits)[:, over].sum(axis=1)
        damage = np.array([mine[place] for mine, place in zip(damages, places, strict=True)])
        places[np.argmin(damage / np.maximum(saved, 1e-12))] -= 1
    return projector.fill(now[None])[0]
