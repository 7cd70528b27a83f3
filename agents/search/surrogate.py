"""A model of the one expensive number: the loss of a finished plan, learnt from every plan measured so far."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from rlprune.envs.decisions.base import NONE, Columns

Measured = tuple[np.ndarray, np.ndarray]
"""(plans, groups + columns) plans and their (plans,) losses."""
TREES = 150
REFIT_EVERY = 40
"""Plans between two fits of the kernel's lengths."""


def capped(losses: np.ndarray) -> np.ndarray:
    """(plans,) losses; those far above the best teach nothing about the good region and would stretch the scale."""
    middle = np.median(losses)
    return np.minimum(losses, middle + 2 * (middle - losses.min()) + 1e-6)


FLOOR = 0.05
"""Keep ratio that stands for none: the logarithm of a block that is out has to be a number."""


NARROW, SELDOM = 1e-3, 0.3
"""Spreads below which inputs are not stretched any further: of all but choices, and of these. A choice that was never
measured is unknown, and no reason to be afraid of it."""


def plan_features(
    plans: np.ndarray, sizes: np.ndarray, blocks: Sequence[tuple[int, ...]], columns: Columns = NONE
) -> np.ndarray:
    """(plans, groups + blocks + seen) log keep ratios, 1 for every block that is out, and what is seen of the columns.

    Args:
        plans: (plans, groups + columns).
        sizes: (groups,) dense channel counts.
        blocks: inner groups of the residual blocks that may be out.
        columns: what stands behind the kept counts.
    """
    counts, chosen = plans[:, : len(sizes)], plans[:, len(sizes) :]
    keep = counts / sizes
    out = [(counts[:, list(groups)] == 0).all(axis=1).astype(float) for groups in blocks]
    return np.column_stack([np.log(np.where(keep > 0, keep, FLOOR)), *out, columns.seen(chosen)])


def narrowest(groups: int, blocks: Sequence[tuple[int, ...]], columns: Columns) -> np.ndarray:
    """(groups + blocks + seen,) the spread below which each of `plan_features` is not stretched any further."""
    choices = [np.full(max(levels - 1, 1), SELDOM if levels > 1 else NARROW) for levels in columns.levels]
    return np.concatenate([np.full(groups + len(blocks), NARROW), *choices])


class OneShotSurrogate:
    """A Gaussian process and extremely randomised trees (Geurts et al., 2006), averaged.

    Both go from log keep ratios and the rise of the loss that the sensitivities foretell to the loss. The process is
    smooth and knows how sure it is, which is what decides what to measure next (Srinivas et al., 2010, arXiv
    0912.3995); the trees follow the cliffs that losses of pruned networks have. Where they disagree, the model is less
    sure. Plans of several budgets teach one model: losses count relative to the others under the same budget.

    Args:
        sizes: (groups,) dense channel counts.
        foretell: (plans, groups) keep ratios -> (plans,) rises of the loss by the additive model.
        blocks: inner groups of the residual blocks that may be out.
        columns: what stands in plans behind the kept counts.
    """

    def __init__(
        self,
        sizes: np.ndarray,
        foretell: Callable[[np.ndarray], np.ndarray],
        blocks: Sequence[tuple[int, ...]] = (),
        columns: Columns = NONE,
    ) -> None:
        self.sizes, self.blocks, self.columns = sizes, blocks, columns
        self.foretell = foretell
        self._least = np.append(narrowest(len(sizes), blocks, columns), NARROW)
        lengths = Matern(np.full(len(self._least), 2.0), (0.2, 50.0), nu=2.5)
        self._kernel = ConstantKernel(1.0, (1e-2, 1e2)) * lengths + WhiteKernel(0.05, (1e-4, 1.0))
        self._fitted_at = 0

    def fit(self, budgets: Sequence[Measured]) -> None:
        """Learn from all measured plans, those of every budget together."""
        inputs = self._features(np.concatenate([counts for counts, _ in budgets]))
        self._centre, self._width = inputs.mean(0), np.maximum(inputs.std(0), self._least)
        self._scales = []
        targets = []
        for _, losses in budgets:
            bounded = capped(losses)
            self._scales.append((bounded.mean(), max(float(bounded.std()), 1e-6)))
            targets.append((bounded - self._scales[-1][0]) / self._scales[-1][1])
        self._fit((inputs - self._centre) / self._width, np.concatenate(targets))

    def _fit(self, inputs: np.ndarray, targets: np.ndarray) -> None:
        tune = len(inputs) >= self._fitted_at + REFIT_EVERY or not self._fitted_at
        self._process = GaussianProcessRegressor(self._kernel, optimizer="fmin_l_bfgs_b" if tune else None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._process.fit(inputs, targets)
        if tune:
            self._kernel, self._fitted_at = self._process.kernel_, len(inputs)
        self._trees = ExtraTreesRegressor(TREES, min_samples_leaf=2, random_state=0).fit(inputs, targets)

    def mean(self, counts: np.ndarray, budget: int = 0) -> np.ndarray:
        """(plans,) expected losses of plans under one of the budgets."""
        inputs = self._inputs(counts)
        middle, spread = self._scales[budget]
        return (self._process.predict(inputs) + self._trees.predict(inputs)) / 2 * spread + middle

    def predict(self, counts: np.ndarray, budget: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """(plans,) expected losses and (plans,) how far off they may be."""
        inputs = self._inputs(counts)
        middle, spread = self._scales[budget]
        smooth, deviation = self._process.predict(inputs, return_std=True)
        steep = self._trees.predict(inputs)
        doubt = np.hypot(deviation, (smooth - steep) / 2)
        return (smooth + steep) / 2 * spread + middle, doubt * spread

    def _inputs(self, counts: np.ndarray) -> np.ndarray:
        return (self._features(counts) - self._centre) / self._width

    def _features(self, counts: np.ndarray) -> np.ndarray:
        foretold = self.foretell(counts[:, : len(self.sizes)] / self.sizes)
        # A hair keeps the logarithm finite where nothing is foretold to happen.
        features = plan_features(counts, self.sizes, self.blocks, self.columns)
        return np.column_stack([features, np.log(foretold + 1e-3)])
