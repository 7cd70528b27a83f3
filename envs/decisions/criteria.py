"""Which of several criteria says what channels of a group go, asked before how many."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from rlprune.cost.exact import Cost
from rlprune.envs.decisions.base import NONE, Columns, Decision, Step
from rlprune.evaluation.sensitivity import Sensitivity

if TYPE_CHECKING:
    from rlprune.envs.episode import BatchedEpisodes, EpisodeSpec

FIRST = 0.25
"""The logit of the first criterion: more than a deviation of a fresh agent's noise around 0, so that few groups get
another one by chance."""
NOT, CHOSEN = 0.0, 0.5
"""Actions that stand for the two where a plan is retraced, as far from it."""
VARIED = 0.15
"""Share of the groups that draw a criterion anew where plans are varied."""


@dataclass(frozen=True)
class Criteria(Decision):
    """Which criterion a group's channels are ranked by: the argmax of logits, the first criterion's a constant one.

    Every other criterion is a step of its own, so that agents whose action is one number choose among any number of
    criteria, none of which lies between two others. `--criterion l1,taylor` switches it on.

    Paper: He et al., Learning Filter Pruning Criteria for Deep Convolutional Neural Networks Acceleration, 2020, where
    Gumbel-softmax chooses

    Attributes:
        number: of criteria; in plans they are numbered from 0.
    """

    needs: ClassVar[tuple[str, ...]] = ("several criteria",)
    rank: ClassVar[int] = 1
    example: ClassVar[str] = "rlprune search --model resnet20 --budget 0.3 --criterion l1,taylor  # decides criteria"
    number: int = 1

    def steps(self, cost: Cost) -> list[Step]:
        """One a group and criterion but the first."""
        others = self.number - 1
        return [Step(group, group * others + other) for group in range(len(cost.sizes)) for other in range(others)]

    def act(self, walks: "BatchedEpisodes", subject: int, actions: np.ndarray) -> None:
        """Choose, as soon as the last of a group's logits is there; kept counts stay as they are."""
        group, other = divmod(subject, self.number - 1)
        if other < self.number - 2:
            return
        logits = [np.full(walks.number, FIRST), *walks.done[1 - self.number :]]
        walks.chosen[:, walks.spec.place_of(self).start + group] = np.argmax(logits, axis=0)

    def retrace(self, walks: "BatchedEpisodes", subject: int, plans: np.ndarray) -> np.ndarray:
        """`CHOSEN` for the criterion that a plan has."""
        group, other = divmod(subject, self.number - 1)
        _, chosen = walks.spec.split(plans)
        return np.where(chosen[:, walks.spec.place_of(self).start + group] == other + 1, CHOSEN, NOT)

    def vary(self, spec: "EpisodeSpec", wished: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Some groups draw one of the criteria."""
        place = spec.place_of(self)
        mine = slice(len(spec.base) + place.start, len(spec.base) + place.stop)
        varied, shape = wished.copy(), wished[:, mine].shape
        drawn = rng.integers(self.number, size=shape)
        varied[:, mine] = np.where(rng.random(shape) < VARIED, drawn, varied[:, mine])
        return varied

    def describe(self, cost: Cost, sensitivity: Sensitivity) -> dict[str, np.ndarray]:
        """Which of the criteria is asked for."""
        others = self.number - 1
        asked = np.tile(np.eye(others), (len(cost.sizes), 1))
        return {f"asks_criterion_{other + 2}": asked[:, other] for other in range(others)}

    def columns(self, cost: Cost) -> Columns:
        """The number of the criterion of every group; each of them in all groups is worth an evaluation."""
        groups = len(cost.sizes)
        others = tuple((number,) * groups for number in range(1, self.number))
        return Columns((0,) * groups, (self.number,) * groups, others) if others else NONE

    def tidy(self, cost: Cost, counts: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """The first where all channels stay, or none."""
        return np.where((counts == cost.sizes) | (counts == 0), 0, chosen) if chosen.shape[1] else chosen
