"""Whether a residual block stays, asked before its first inner group."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from rlprune.cost.exact import Cost
from rlprune.envs.decisions.base import Decision, Step
from rlprune.evaluation.sensitivity import Sensitivity

if TYPE_CHECKING:
    from rlprune.envs.episode import BatchedEpisodes, EpisodeSpec

THRESHOLD = 0.25
"""Above it a block goes: more than a deviation of a fresh agent's noise around 0, so that few go by chance."""
STAY, GO = 0.0, 0.5
"""Actions that stand for the two where a plan is retraced, as far from the threshold."""
VARIED = 0.15
"""Share of the blocks that are decided otherwise where plans are varied."""


@dataclass(frozen=True)
class Blocks(Decision):
    """Whether a residual block is taken out whole; its channels are then decided, too.

    Paper: Veit et al., Residual Networks Behave Like Ensembles of Relatively Shallow Networks, 2016, arXiv 1605.06431
    """

    needs: ClassVar[tuple[str, ...]] = ("blocks",)
    rank: ClassVar[int] = 0

    def steps(self, cost: Cost) -> list[Step]:
        """One a block."""
        return [Step(min(groups), number) for number, groups in enumerate(cost.blocks)]

    def act(self, walks: "BatchedEpisodes", subject: int, actions: np.ndarray) -> None:
        """Take the block out where the action is above `THRESHOLD`; what it frees is for the groups to come."""
        gone = np.ix_(actions > THRESHOLD, np.array(walks.spec.projector.cost.blocks[subject]))
        walks.counts, walks.base = walks.counts.copy(), walks.base.copy()
        walks.counts[gone] = walks.base[gone] = 0

    def retrace(self, walks: "BatchedEpisodes", subject: int, plans: np.ndarray) -> np.ndarray:
        """`GO` where the plan is without the block."""
        inner = list(walks.spec.projector.cost.blocks[subject])
        return np.where(plans[:, inner].any(axis=1), STAY, GO)

    def vary(self, spec: "EpisodeSpec", wished: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Some blocks go, and some that are out come back with the base plan's counts."""
        wished = wished.copy()
        for groups in spec.projector.cost.blocks:
            inner = list(groups)
            other = np.where(wished[:, inner] > 0, 0.0, spec.base[inner])
            wished[:, inner] = np.where(rng.random((len(wished), 1)) < VARIED, other, wished[:, inner])
        return wished

    def describe(self, cost: Cost, sensitivity: Sensitivity) -> dict[str, np.ndarray]:
        """That a block is asked for; what the loss rises by without it alone, and what of each resource goes."""
        top = max(float(np.abs(sensitivity.rises).max()), 1e-9)
        known = dict(sensitivity.blocks)
        seen = {
            "asks_block": np.ones(len(cost.blocks)),
            "block_rise": np.array([known.get(groups, 0.0) for groups in cost.blocks]) / top,
        }
        saved = cost.saved_without()
        return seen | {f"block_saves_{name}": saved[:, place] for place, name in enumerate(cost.resources)}
