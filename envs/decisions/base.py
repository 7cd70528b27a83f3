"""What decisions share: when a walk asks them, what an action does, what is seen of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Columns:
    """Whole numbers that decisions add to a plan behind its kept counts, of which its cost does not depend.

    Attributes:
        base: (columns,) what the base plan has.
        levels: (columns,) how many values a column has that stand for a choice, which the reward model tells apart one
            by one; 1 where it is a quantity, which the model sees as it is.
        others: (columns,) each, what is measured of the base plan, too, before the first round.
    """

    base: tuple[int, ...] = ()
    levels: tuple[int, ...] = ()
    others: tuple[tuple[int, ...], ...] = ()

    def complete(self, plan: np.ndarray, groups: int) -> np.ndarray:
        """A plan that may be (groups,) kept counts alone -> the same with what the base plan has behind them."""
        return plan if len(plan) > groups else np.append(plan, np.array(self.base, dtype=plan.dtype))

    def seen(self, chosen: np.ndarray) -> np.ndarray:
        """(plans, features) what the reward model sees of (plans, columns): of a choice 1 for each but the first."""
        parts = [
            column[:, None] == np.arange(1, levels) if levels > 1 else column[:, None]
            for column, levels in zip(chosen.T, self.levels, strict=True)
        ]
        return np.concatenate([np.empty((len(chosen), 0)), *parts], axis=1)


NONE = Columns()
"""Behind the kept counts stands nothing."""


class Decision(Protocol):
    """Something that a walk decides by one action a step; a frozen dataclass whose fields are its settings.

    What is decided is written into `counts` and `base` of the walks, of which kept counts, cost and surgery follow, or
    into its own columns of `chosen`.

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

    def columns(self, cost: Cost) -> Columns:
        """What it adds to the plans of a network of this cost."""
        return NONE

    def tidy(self, cost: Cost, counts: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """(plans, its columns) as in the base plan where they make no difference, so that no plan is there twice.

        Args:
            cost: of the network.
            counts: (plans, groups) kept channels.
            chosen: (plans, its columns).
        """
        return chosen


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


def columns_of(decisions: Iterable[Decision], cost: Cost) -> Columns:
    """What decisions add to the plans of a network, one after the other."""
    mine = [decision.columns(cost) for decision in decisions]
    base, levels = (sum((getattr(each, name) for each in mine), ()) for name in ("base", "levels"))
    # One decision is changed at a time, the others are as in the base plan.
    others, before = [], 0
    for each in mine:
        after = before + len(each.base)
        others += [(*base[:before], *other, *base[after:]) for other in each.others]
        before = after
    return Columns(base, levels, tuple(others))


def measured_blocks(decisions: Iterable[Decision], cost: Cost) -> tuple[tuple[int, ...], ...]:
    """Inner groups of the residual blocks that decisions may take out, whose cost in loss is measured."""
    return cost.blocks if any("blocks" in decision.needs for decision in decisions) else ()
