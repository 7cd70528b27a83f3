"""Curves through the few points of a sensitivity: monotone and smooth over the logarithm of the keep ratio.

Lines between the points have corners there, and a plan that weighs one group against another ends in the corners.
"""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator
from sklearn.isotonic import isotonic_regression

from rlprune.evaluation.sensitivity import Sensitivity

SAMPLES = 256
"""Ratios at which a curve is made convex."""


def smooth_curve(sensitivity: Sensitivity, group: int, ratios: np.ndarray) -> np.ndarray:
    """The rise of the loss by one group's curve, made to rise (isotonic regression) and smooth.

    Monotone cubic interpolation over the logarithm of the keep ratio (Fritsch and Carlson, 1980).

    Args:
        sensitivity: the measured curves.
        group: which one.
        ratios: (...,) keep ratios.

    Returns:
        (...,) rises. Below the lowest ratio that was measured the curve goes on as steeply as between its last points.
    """
    measured, rises = sensitivity.curve(group)
    if len(measured) == 1:
        return np.zeros_like(ratios)
    # Hairs that rounding leaves would overflow in the inverse of a slope.
    curve = isotonic_regression(np.maximum(rises, 0).round(12), increasing=False)
    logs, wished = np.log(measured), np.log(ratios)
    inside = PchipInterpolator(logs, curve)(np.maximum(wished, logs[0]))
    slope = (curve[0] - curve[1]) / (logs[1] - logs[0])
    return inside + slope * np.maximum(logs[0] - wished, 0)


@dataclass(frozen=True)
class ConvexCurve:
    """The greatest convex curve below a smooth one, for who cuts step by step and must not stop before a steep one.

    Where the smooth curve is convex in the keep ratio, this is it.

    Attributes:
        ratios: (samples,) keep ratios upwards.
        rises: (samples,) of the loss.
        slope: of the rise over the falling logarithm of the ratio, below the lowest one.
    """

    ratios: np.ndarray
    rises: np.ndarray
    slope: float

    @staticmethod
    def of(sensitivity: Sensitivity, group: int) -> "ConvexCurve":
        """The curve of one group."""
        measured, _ = sensitivity.curve(group)
        lowest = float(measured[0])
        if len(measured) == 1:
            return ConvexCurve(measured, np.zeros(1), 0.0)
        ratios = np.union1d(measured, np.geomspace(lowest, measured[-1], SAMPLES).clip(lowest, measured[-1]))
        smooth = smooth_curve(sensitivity, group, ratios)
        below = float(smooth_curve(sensitivity, group, np.array([lowest / 2]))[0] - smooth[0]) / np.log(2)
        # What is convex has slopes that grow, and the greatest one below has their isotonic regression.
        lengths = np.diff(ratios)
        slopes = isotonic_regression(np.diff(smooth) / lengths, sample_weight=lengths)
        rises = np.append(np.cumsum((-slopes * lengths)[::-1])[::-1], 0.0) + smooth[-1]
        return ConvexCurve(ratios, rises, max(below, float(-slopes[0]) * lowest))

    def __call__(self, ratios: np.ndarray) -> np.ndarray:
        """(...,) keep ratios -> (...,) rises."""
        beyond = np.log(np.maximum(self.ratios[0] / ratios, 1.0))
        return np.interp(ratios, self.ratios, self.rises) + self.slope * beyond
