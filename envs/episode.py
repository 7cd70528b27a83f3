"""The walk: groups are decided one after the other, and what is left is projected onto the budget after every decision.

What is decided is for the decisions that are switched on to say: how many channels a group keeps, and before that maybe
whether its residual block stays.

Many walks go side by side as arrays; the single environment is one of them. The dynamics are exact and cost next to
nothing, only the score of a finished plan is expensive, which is what makes imagined walks possible.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rlprune.cost.projection import BudgetProjector
from rlprune.envs.checks import checked_actions
from rlprune.envs.decisions.base import Columns, Decision, Step, columns_of, measured_blocks, steps_of
from rlprune.envs.decisions.channels import Channels
from rlprune.envs.observation import Features

Score = Callable[[np.ndarray], np.ndarray]
"""(plans, groups + columns) plans -> (plans,) losses; a real evaluator or a model of it."""


@dataclass(frozen=True)
class EpisodeSpec:
    """What is walked and what counts: shared by every environment of a search.

    A plan is the (groups,) kept counts, followed by the columns of decisions that have any.

    Attributes:
        projector: budget and cost.
        features: observations of every group.
        base: (groups,) float counts of the base plan; a zero action stays on it.
        base_value: value of the base plan; rewards are relative to it.
        weights: (2,) what one unit of the MACs and of the parameters ratio costs in loss; zero for a hard budget alone.
        balance: the agent itself decides how much goes in all; the budget is only an upper bound.
        reach: an action of ±1 multiplies the base plan's ratio by exp(±reach).
        groups: (groups,) names, for people; may be left out.
        decisions: what is asked in a walk, see `rlprune.envs.decisions.base.Decision`.
    """

    projector: BudgetProjector
    features: Features
    base: np.ndarray
    base_value: float
    weights: np.ndarray
    balance: bool = False
    reach: float = 1.0
    groups: tuple[str, ...] = ()
    decisions: tuple[Decision, ...] = (Channels(),)

    @cached_property
    def steps(self) -> list[tuple[Decision, Step]]:
        """Every step of a walk: who is asked, and for what."""
        return steps_of(self.decisions, self.projector.cost)

    @cached_property
    def columns(self) -> Columns:
        """What stands in a plan behind the kept counts."""
        return columns_of(self.decisions, self.projector.cost)

    def place_of(self, decision: Decision) -> slice:
        """Where the columns of a decision are among all of them."""
        before = self.decisions[: self.decisions.index(decision)]
        start = len(columns_of(before, self.projector.cost).base)
        return slice(start, start + len(decision.columns(self.projector.cost).base))

    def split(self, plans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(plans, groups) counts and (plans, columns) of plans; as in the base plan where only counts are given."""
        groups = len(self.base)
        if plans.shape[1] > groups or not self.columns.base:
            return plans[:, :groups], plans[:, groups:].astype(np.int64)
        return plans, np.tile(np.array(self.columns.base, dtype=np.int64), (len(plans), 1))

    def join(self, counts: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """(plans, groups) final counts and (plans, columns) -> plans, of which no two are the same network."""
        if not self.columns.base:
            return counts
        cost, parts = self.projector.cost, [counts]
        for decision in self.decisions:
            parts.append(decision.tidy(cost, counts, chosen[:, self.place_of(decision)]))
        return np.concatenate(parts, axis=1)

    def scaled(self, plan: np.ndarray, logs: np.ndarray) -> np.ndarray:
        """(plans, groups) logarithms of factors on the counts of a plan, or of one each -> wishes for `finish`."""
        counts, chosen = self.split(np.atleast_2d(plan))
        wished = np.minimum(counts * np.exp(logs), self.projector.sizes)
        return np.concatenate([wished, np.broadcast_to(chosen, (len(wished), chosen.shape[1]))], axis=1)

    @property
    def removable(self) -> tuple[tuple[int, ...], ...]:
        """Inner groups of the residual blocks that a walk may take out."""
        return measured_blocks(self.decisions, self.projector.cost)

    def value(self, counts: np.ndarray, losses: np.ndarray) -> np.ndarray:
        """(plans,) what the agent maximises of plans: minus the loss, minus what is charged for cost."""
        return -losses - self.projector.cost.ratios(counts)[..., : len(self.weights)] @ self.weights

    def reward(self, counts: np.ndarray, losses: np.ndarray) -> np.ndarray:
        """(plans,) terminal rewards: the gain over the base plan."""
        return self.value(counts, losses) - self.base_value

    def base_plan(self) -> np.ndarray:
        """The base plan."""
        plan: np.ndarray = self.finish(self.base[None])[0]
        return plan

    def vary(self, wished: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(plans, groups) wished counts -> plans like `finish`'s, with what else is decided changed here and there."""
        wished = np.concatenate(self.split(wished), axis=1)
        for decision in self.decisions:
            wished = decision.vary(self, wished, rng)
        return self.finish(wished)

    def finish(self, wished: np.ndarray) -> np.ndarray:
        """(plans, groups) wished counts -> the plan that a walk with these wishes would end in, all at once.

        A block is out where all of its inner groups have a wish of 0. Columns behind the counts stay as they are.
        """
        projector, (counts, chosen) = self.projector, self.split(wished)
        factor = projector.rescale(counts)
        if self.balance:
            return self.join(projector.quantise(counts * np.minimum(factor, 1)[:, None]), chosen)
        return self.join(projector.fill(projector.quantise(counts * factor[:, None])), chosen)


class BatchedEpisodes:
    """Many walks side by side.

    Args:
        spec: what is walked.
        number: how many walks go at once.

    Attributes:
        counts: (walks, groups) kept channels; of groups that are not decided the smallest allowed.
        base: (walks, groups) counts that the groups to come have in the base plan.
        chosen: (walks, columns) what stands in plans behind the counts.
        done: (walks,) actions of every step so far.
    """

    def __init__(self, spec: EpisodeSpec, number: int) -> None:
        self.spec = spec
        self.number = number
        self.length = len(spec.steps)
        self._start = self._limited(spec.projector.rescale(np.tile(spec.base, (number, 1))))
        self.reset()

    def reset(self) -> np.ndarray:
        """Start all walks again; returns (walks, features) observations of the first step."""
        self.step_index = 0
        self.counts = np.tile(self.spec.projector.minimum, (self.number, 1))
        self.base = np.tile(self.spec.base.astype(float), (self.number, 1))
        self.chosen = np.tile(np.array(self.spec.columns.base, dtype=np.int64), (self.number, 1))
        self.action = np.zeros(self.number)
        self.done: list[np.ndarray] = []
        self.factor = self._start
        return self.observe()

    @property
    def plans(self) -> np.ndarray:
        """(walks, groups + columns) what the walks have come to."""
        return self.spec.join(self.counts, self.chosen)

    @property
    def group(self) -> int:
        """The group that is next; all before it are decided."""
        return len(self.spec.base) if self.step_index == self.length else self.spec.steps[self.step_index][1].group

    def step(self, actions: np.ndarray) -> bool:
        """Take one step in every walk.

        Args:
            actions: (walks,) in [-1, 1]; for the channels of a group the residual: 0 keeps the base plan's (rescaled)
                ratio.

        Returns:
            Whether the walks are finished; `plans` then holds their plans.

        Raises:
            ValueError: actions that are not one finite number a walk, or the walks are over.
        """
        if self.step_index == self.length:
            groups = len(self.spec.base)
            raise ValueError(
                f"the episode is over: all {groups} groups are decided; call reset() before the next step()"
            )
        self.action = np.clip(checked_actions(actions, (self.number,)), -1, 1)
        self.done.append(self.action)
        decision, asked = self.spec.steps[self.step_index]
        decision.act(self, asked.subject, self.action)
        self.step_index += 1
        if self.step_index == self.length:
            if not self.spec.balance:
                self.counts = self.spec.projector.fill(self.counts)
            return True
        self.factor = self._rescaled()
        return False

    def wished(self) -> np.ndarray:
        """(walks, groups) the base plan's counts, rescaled to what is left of the budget."""
        return np.minimum(self.base * self.factor[:, None], self.spec.projector.sizes)

    def _rescaled(self) -> np.ndarray:
        return self._limited(self.spec.projector.rescale(self.base, self.counts, self.group, self.factor))

    def _limited(self, factor: np.ndarray) -> np.ndarray:
        """Where the agent balances, what is left of the budget is no reason to keep more."""
        return np.minimum(factor, 1) if self.spec.balance else factor

    def observe(self) -> np.ndarray:
        """(walks, features) what the agent sees before the current step."""
        spec, group = self.spec, self.group
        if group == len(spec.base):
            return np.zeros((self.number, spec.features.size), dtype=np.float32)
        cost = spec.projector.cost
        budget = np.minimum(spec.projector.budget.fractions(cost.resources), 1)
        used = cost.ratios(self.counts) / budget
        ratios = self.wished() / spec.projector.sizes
        walk = np.stack([ratios[:, group], np.log(self.factor), self.action], axis=1)
        ratios[:, :group] = self.counts[:, :group] / spec.projector.sizes[:group]
        around = ratios @ spec.features.neighbours[:, group].T
        dynamic = np.concatenate([walk, around, used, 1 - used, np.broadcast_to(budget, used.shape)], axis=1)
        return spec.features.observe(group, dynamic, self.step_index)


def retrace(spec: EpisodeSpec, plans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The walks that end in given plans, or as near to them as the reach of an action allows.

    Args:
        spec: what is walked.
        plans: (plans, groups + columns), projected onto the budget.

    Returns:
        (steps, plans, features) what is seen and (steps, plans) what is done.
    """
    walks = BatchedEpisodes(spec, len(plans))
    seen, done, finished = [], [], False
    while not finished:
        decision, asked = spec.steps[walks.step_index]
        seen.append(walks.observe())
        done.append(decision.retrace(walks, asked.subject, plans))
        finished = walks.step(done[-1])
    return np.array(seen), np.array(done)
