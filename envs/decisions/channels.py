"""How many channels every group keeps: residual actions on the base plan."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from rlprune.cost.exact import Cost
from rlprune.envs.decisions.base import Decision, Step
from rlprune.evaluation.sensitivity import Sensitivity

if TYPE_CHECKING:
    from rlprune.envs.episode import BatchedEpisodes, EpisodeSpec


@dataclass(frozen=True)
class Channels(Decision):
    """How many channels every group keeps, as a factor on the base plan's.

    Paper: He et al., AMC: AutoML for Model Compression and Acceleration, 2018, arXiv 1802.03494, with absolute ratios
    """

    needs: ClassVar[tuple[str, ...]] = ()
    rank: ClassVar[int] = 2

    def steps(self, cost: Cost) -> list[Step]:
        """One a group."""
        return [Step(group, group) for group in range(len(cost.sizes))]

    def act(self, walks: "BatchedEpisodes", subject: int, actions: np.ndarray) -> None:
        """Keep the wished channels times exp(reach * action), as far as the budget allows."""
        projector, group = walks.spec.projector, subject
        wished = walks.wished()[:, group] * np.exp(walks.spec.reach * actions)
        chosen = walks.counts.copy()
        # A wish for next to nothing is one for the smallest number; 0 is for a block that is out.
        chosen[:, group] = np.maximum(np.floor(wished + 0.5), wished > 0)
        chosen[:, group] = projector.quantise(chosen)[:, group]
        # The groups still to come must be able to meet the budget at their minimum.
        over = np.flatnonzero(~projector.fits(chosen))
        if len(over):
            most = projector.largest(walks.counts[over], group)
            chosen[over, group] = np.minimum(chosen[over, group], most)
        walks.counts = chosen

    def retrace(self, walks: "BatchedEpisodes", subject: int, plans: np.ndarray) -> np.ndarray:
        """The logarithm of the plan's count over the wished one; 0 where its block is out."""
        kept, wished = plans[:, subject], walks.wished()[:, subject]
        decided = (kept > 0) & (wished > 0)
        ratio = np.divide(kept, wished, out=np.ones(len(kept)), where=decided)
        actions: np.ndarray = np.clip(np.log(ratio) / walks.spec.reach, -1, 1)
        return actions

    def vary(self, spec: "EpisodeSpec", wished: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """As they are: whoever varies plans says how much their channels change."""
        return wished

    def describe(self, cost: Cost, sensitivity: Sensitivity) -> dict[str, np.ndarray]:
        """Nothing: all observations are of groups anyway."""
        return {}
