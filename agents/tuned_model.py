"""A model of what a plan is worth after a brief fine-tuning, from few tunings and a model of the one-shot loss."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

from rlprune.agents.reward_model import Measured, capped


class TunedModel:
    """A Gaussian process whose trend is linear in the one-shot loss and in the log keep ratios.

    Two fidelities, the dear one regressed on the cheap one (Kennedy & O'Hagan, 2000): hundreds of one-shot losses have
    taught the one, a few dozen tunings teach the other. So few of them bear only a handful of hyperparameters: one
    length for all groups.

    Args:
        sizes: (groups,) dense channel counts.
        oneshot: (plans, groups) kept counts -> (plans,) expected one-shot losses.
    """

    def __init__(self, sizes: np.ndarray, oneshot: Callable[[np.ndarray], np.ndarray]) -> None:
        self.sizes = sizes
        self.oneshot = oneshot

    def fit(self, budgets: Sequence[Measured]) -> None:
        """Learn from all tuned plans of the one budget."""
        ((counts, losses),) = budgets
        inputs = self._features(counts)
        self._centre, self._width = inputs.mean(0), np.maximum(inputs.std(0), 1e-3)
        targets = capped(losses)
        self._middle, self._spread = targets.mean(), max(float(targets.std()), 1e-6)
        trend = ConstantKernel(0.1, (1e-3, 1e1)) * DotProduct(1.0, "fixed")
        rest = ConstantKernel(0.5, (1e-2, 1e2)) * Matern(5.0, (1.0, 50.0), nu=2.5)
        self._process = GaussianProcessRegressor(trend + rest + WhiteKernel(0.1, (1e-3, 1.0)))
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
        return np.column_stack([np.log(counts / self.sizes), self.oneshot(counts)])
