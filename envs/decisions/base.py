"""What decisions share: when a walk asks them, what an action does, what is seen of them."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

import numpy as np

from rlprune import registry
from rlprune.cost.exact import Cost
from rlprune.evaluation.sensitivity import Sensitivity

if TYPE_CHECKING:
    from rlprune.envs.episode import BatchedEpisodes, EpisodeSpec


class Step(NamedTuple):
    """When a decision is asked, and of what.

    Attributes:
        group: before this group, whose facts are shown.
        subject: number of what is decided, such as a group or a block.
    """

    group: int
    subject: int


class Decision(Protocol):
    """Something that a walk decides by one action a step; a frozen dataclass whose fields are its settings.

    What is decided is written into `counts` and `base` of the walks, of which kept counts, cost and surgery follow.

    Attributes:
        needs: what it asks for besides evaluations of plans, in words.
        rank: of several decisions before the same group the one of the lowest rank is asked first.
    """

    needs: ClassVar[tuple[str, ...]]
    rank: ClassVar[int]

    def steps(self, cost: Cost) -> list[Step]:
        """When it is asked in a network of this cost; empty where there is nothing to decide."""

    def act(self, walks: "BatchedEpisodes", subject: int, actions: np.ndarray) -> None:
        """Decide in every walk.

        Args:
            walks: changed in place.
            subject: of what is decided.
            actions: (walks,) in [-1, 1]; 0 stays with the base plan.
        """

    def retrace(self, walks: "BatchedEpisodes", subject: int, plans: np.ndarray) -> np.ndarray:
        """(walks,) actions by which walks come to (walks, groups) kept counts, or as near to them as they can."""

    def vary(self, spec: "EpisodeSpec", wished: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(plans, groups) wished counts -> the same with what is decided changed here and there."""

    def describe(self, cost: Cost, sensitivity: Sensitivity) -> dict[str, np.ndarray]:
        """What is seen of every subject when it is asked for: name -> (subjects,) numbers; 0 in all other steps."""


def make_decisions(names: Iterable[str]) -> tuple[Decision, ...]:
    """The decisions with these names, in the order in which they are asked.

    Raises:
        UserError: there is none of a name.
    """
    return tuple(sorted((registry.make("decision", name) for name in names), key=lambda decision: decision.rank))


def steps_of(decisions: Sequence[Decision], cost: Cost) -> list[tuple[Decision, Step]]:
    """All steps of a walk: group by group, before each of them in the order of the decisions."""
    asked = [(step.group, place, step) for place, decision in enumerate(decisions) for step in decision.steps(cost)]
    return [(decisions[place], step) for _, place, step in sorted(asked)]


def measured_blocks(decisions: Iterable[Decision], cost: Cost) -> tuple[tuple[int, ...], ...]:
    """Inner groups of the residual blocks that decisions may take out, whose cost in loss is measured."""
    return cost.blocks if any("blocks" in decision.needs for decision in decisions) else ()
