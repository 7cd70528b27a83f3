"""A model of the one expensive number: the loss of a finished plan, learnt from every plan measured so far."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel


class RewardModel:
    """Gaussian process from log keep ratios to the loss, with a length scale for every group.

    A Gaussian process says how sure it is, which is what decides what to measure next (Srinivas et al., 2010,
    arXiv 0912.3995).

    Args:
        sizes: (groups,) dense channel counts.
        refit_every: plans between two fits of the kernel's lengths.
    """

    def __init__(self, sizes: np.ndarray, refit_every: int = 40) -> None:
        self.sizes = sizes
        self.refit_every = refit_every
        self._kernel = ConstantKernel(1.0, (1e-2, 1e2)) * RBF(np.full(len(sizes), 2.0), (0.2, 50.0)) + WhiteKernel(
            0.05, (1e-4, 1.0)
        )
        self._fitted_at = 0

    def fit(self, counts: np.ndarray, losses: np.ndarray) -> None:
        """Learn from all measured plans.

        Args:
            counts: (plans, groups) kept counts.
            losses: (plans,) their losses on the search split.
        """
        logs = np.log(counts / self.sizes)
        # Plans far above the best teach nothing about the good region and would stretch the scale.
        targets = np.minimum(losses, np.median(losses) + 2 * (np.median(losses) - losses.min()) + 1e-6)
        self._centre, self._scale = logs.mean(0), np.maximum(logs.std(0), 1e-3)
        self._mean, self._spread = targets.mean(), max(float(targets.std()), 1e-6)
        tune = len(counts) >= self._fitted_at + self.refit_every or not self._fitted_at
        self._process = GaussianProcessRegressor(self._kernel, optimizer="fmin_l_bfgs_b" if tune else None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._process.fit(self._inputs(counts), (targets - self._mean) / self._spread)
        if tune:
            self._kernel, self._fitted_at = self._process.kernel_, len(counts)

    def mean(self, counts: np.ndarray) -> np.ndarray:
        """(plans,) expected losses of (plans, groups) kept counts."""
        return self._process.predict(self._inputs(counts)) * self._spread + self._mean

    def predict(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(plans,) expected losses and (plans,) their standard deviations."""
        mean, deviation = self._process.predict(self._inputs(counts), return_std=True)
        return mean * self._spread + self._mean, deviation * self._spread

    def _inputs(self, counts: np.ndarray) -> np.ndarray:
        """Log keep ratios, standardised as those of the measured plans."""
        return (np.log(counts / self.sizes) - self._centre) / self._scale
