"""The best plan of a search so far."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from rlprune.cost.projection import BudgetProjector
from rlprune.envs.episode import EpisodeSpec
from rlprune.tasks.base import Evaluation

Known = Iterable[tuple[tuple[int, ...], Evaluation]]
"""Kept counts and what was measured of them."""


class BestPlan:
    """Compares every plan with the best one under the one budget; before `count` nothing counts.

    Attributes:
        spec: what counts.
        counts: (groups,) kept channels, None before the first plan.
        evaluation: what was measured of it.
    """

    def __init__(self) -> None:
        self.spec: EpisodeSpec | None = None
        self.counts: np.ndarray | None = None
        self.evaluation = Evaluation(float("nan"), float("nan"))
        self._value = -np.inf

    @property
    def loss(self) -> float | None:
        """Of the best plan, if there is one yet."""
        return None if self.counts is None else self.evaluation.loss

    def count(self, spec: EpisodeSpec, known: Known) -> None:
        """From now on this is what counts; plans that are known are compared anew."""
        self.spec = spec
        self._compare_all(known)

    def project(self, projector: BudgetProjector, known: Known) -> None:
        """Budget and cost are these from now on: which plan is the best may be another one."""
        if self.spec is not None:
            self.counts, self._value = None, -np.inf
            self.count(replace(self.spec, projector=projector), known)

    def restart(self, known: Known) -> None:
        """From now on plans are measured in another way, and compared with those alone that were measured so, too."""
        self._value = -np.inf
        self._compare_all(known)

    def compare(self, counts: np.ndarray, evaluation: Evaluation) -> None:
        """Take a plan, (groups,) kept channels, if it is inside the budget and better than the best."""
        if self.spec is None or not self.spec.projector.fits(counts[None])[0]:
            return
        value = float(self.spec.value(counts[None], np.array([evaluation.loss]))[0])
        if value > self._value:
            self.counts, self.evaluation, self._value = counts, evaluation, value

    def _compare_all(self, known: Known) -> None:
        for counts, evaluation in known:
            self.compare(np.array(counts), evaluation)
