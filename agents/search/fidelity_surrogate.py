"""A model of what a plan is worth after a brief fine-tuning, from few tunings and a model of the one-shot loss."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

from rlprune.agents.search.surrogate import NARROW, Measured, capped, narrowest, plan_features
from rlprune.envs.decisions.base import NONE, Columns
from rlprune.plans.counts import plan_key

SLOPE = 0.5
"""What is left of a difference between two plans after a longer tuning, before any is known."""
VAGUE, EXACT = 0.3, 1e-10
"""Variances of what a brief tuning tells of a longer one, and of what was measured, relative to all plans' losses."""


class FidelitySurrogate:
    """A Gaussian process whose trend is linear in the one-shot loss and in the log keep ratios.

    Two fidelities, the dear one regressed on the cheap one (Kennedy & O'Hagan, 2000): hundreds of one-shot losses have
    taught the one, a few dozen tunings teach the other. So few of them bear only a handful of hyperparameters: one
    length for all groups. Where some plans were tuned for longer, what brief tunings have left counts as a vague view
    of what longer ones would.

    Args:
        sizes: (groups,) dense channel counts.
        oneshot: (plans, groups) kept counts -> (plans,) expected one-shot losses.
        brief: plans and their losses after briefer tunings, some of which are among those it will learn from.
        blocks: inner groups of the residual blocks that may be out.
        columns: what stands in plans behind the kept counts.
    """

    def __init__(
        self,
        sizes: np.ndarray,
        oneshot: Callable[[np.ndarray], np.ndarray],
        brief: Measured | None = None,
        blocks: Sequence[tuple[int, ...]] = (),
        columns: Columns = NONE,
    ) -> None:
        self.sizes, self.blocks, self.columns = sizes, blocks, columns
        self._least = np.append(narrowest(len(sizes), blocks, columns), NARROW)
        self.oneshot = oneshot
        self.brief = brief

    def fit(self, budgets: Sequence[Measured]) -> None:
        """Learn from all tuned plans of the one budget."""
        ((counts, losses),) = budgets
        targets, known = capped(losses), len(losses)
        if self.brief is not None:
            counts, targets = _joined(self.brief, counts, targets)
        vague = np.where(np.arange(len(targets)) < known, EXACT, VAGUE)
        inputs = self._features(counts)
        self._centre, self._width = inputs.mean(0), np.maximum(inputs.std(0), self._least)
        self._middle, self._spread = targets.mean(), max(float(targets.std()), 1e-6)
        trend = ConstantKernel(0.1, (1e-3, 1e1)) * DotProduct(1.0, "fixed")
        rest = ConstantKernel(0.5, (1e-2, 1e2)) * Matern(5.0, (1.0, 50.0), nu=2.5)
        self._process = GaussianProcessRegressor(trend + rest + WhiteKernel(0.1, (1e-3, 1.0)), alpha=vague)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._process.fit((inputs - self._centre) / self._width, (targets - self._middle) / self._spread)

    def mean(self, counts: np.ndarray, budget: int = 0) -> np.ndarray:
        """(plans,) expected losses of (plans, groups) kept counts after tuning."""
        return self._process.predict(self._inputs(counts)) * self._spread + self._middle

    def predict(self, counts: np.ndarray, budget: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """(plans,) expected losses and (plans,) how far off they may be."""
        mean, deviation = self._process.predict(self._inputs(counts), return_std=True)
        return mean * self._spread + self._middle, deviation * self._spread

    def _inputs(self, counts: np.ndarray) -> np.ndarray:
        return (self._features(counts) - self._centre) / self._width

    def _features(self, counts: np.ndarray) -> np.ndarray:
        return np.column_stack([plan_features(counts, self.sizes, self.blocks, self.columns), self.oneshot(counts)])


def _joined(brief: Measured, counts: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(plans, groups) plans and (plans,) losses after a longer tuning, followed by those that were only tuned briefly
    with the losses that a longer tuning would be expected to leave.

    These lie on the line of least squares through the plans that had both, drawn towards a usual slope as by one more
    plan a standard deviation away.
    """
    known, before = {plan_key(plan): loss for plan, loss in zip(counts, losses, strict=True)}, capped(brief[1])
    after = np.array([known.get(plan_key(plan), np.nan) for plan in brief[0]])
    both = ~np.isnan(after)
    middle, end = before[both].mean(), after[both].mean()
    x, y, spread = before[both] - middle, after[both] - end, before.var()
    slope = (x @ y + SLOPE * spread) / max(x @ x + spread, 1e-12)
    expected = end + slope * (before[~both] - middle)
    return np.concatenate([counts, brief[0][~both]]), np.concatenate([losses, expected])
