"""Curves against numbers by hand and the definition of a convex curve."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlprune.evaluation.curves import ConvexCurve, smooth_curve
from rlprune.evaluation.sensitivity import Sensitivity


def test_curves_by_hand() -> None:
    """Noise is pooled, straight lines in the logarithm stay straight, and no cut is a gain."""
    ratios = np.array([1, 0.5, 0.25, 0.125])
    rises = np.array([[0, 1, 2, 3], [0, 3, 1, 4], [0, -1, -2, -1], [0, 0, 0, 0]])
    curves = Sensitivity(ratios, rises.astype(float))
    wished = np.array([1, 2**-0.5, 0.5, 0.25, 0.2, 0.125, 1 / 16])
    assert smooth_curve(curves, 0, wished) == pytest.approx(-np.log2(wished))
    assert smooth_curve(curves, 1, wished[[0, 2, 3, 5, 6]]) == pytest.approx([0, 2, 2, 4, 6])
    assert smooth_curve(curves, 2, wished) == pytest.approx(np.zeros(7))
    uncut = Sensitivity(np.array([[1.0, 1, 1, 1]]), np.zeros((1, 4)))
    assert smooth_curve(uncut, 0, wished) == pytest.approx(np.zeros(7))
    assert ConvexCurve.of(uncut, 0)(wished) == pytest.approx(np.zeros(7))


@given(st.lists(st.floats(0, 5), min_size=3, max_size=3), st.integers(0, 2))
def test_curves_never_fall_with_the_cut(rises: list[float], repeated: int) -> None:
    ratios = np.array([1, 0.5, 0.25, 0.1])
    ratios[1:][:repeated] = ratios[1]
    rises[:repeated] = rises[:1] * repeated
    curve = smooth_curve(Sensitivity(ratios, np.array([[0, *rises]])), 0, np.geomspace(0.01, 1, 200))
    assert (np.diff(curve) <= 1e-12).all()
    assert curve[-1] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("rises", [[0, 0, 0], [1, 2, 4], [2, 2, 2], [0, 3, 3], [0.1, 2, 2.1], [3, 1, 5]])
def test_the_convex_curve_is_the_greatest_below_the_smooth_one(rises: list[float]) -> None:
    """Against the definition: at every point the least of all lines over it between two points of the smooth curve."""
    sensitivity = Sensitivity(np.array([1, 0.5, 0.25, 0.1]), np.array([[0, *rises]]))
    curve = ConvexCurve.of(sensitivity, 0)
    x, smooth = curve.ratios, smooth_curve(sensitivity, 0, curve.ratios)
    for here in range(1, len(x) - 1, 20):
        left, right = smooth[:here, None], smooth[here + 1 :]
        share = (x[here] - x[:here, None]) / (x[here + 1 :] - x[:here, None])
        lines = left + share * (right - left)
        assert curve(x[here]) == pytest.approx(min(lines.min(), smooth[here]), abs=1e-9)
    assert curve(x[[0, -1]]) == pytest.approx(smooth[[0, -1]], abs=1e-9)


def test_what_is_smooth_and_convex_stays_so() -> None:
    """The logarithm, also below the lowest point that was measured."""
    curve = ConvexCurve.of(Sensitivity(np.array([1, 0.5, 0.25, 0.125]), np.array([[0.0, 1, 2, 3]])), 0)
    wished = np.geomspace(0.01, 1, 50)
    assert curve(wished) == pytest.approx(-np.log2(wished), abs=1e-3)


def test_it_stays_convex_below_the_lowest_point() -> None:
    """A curve that is flat at its end, near chance, would not be: there the last line goes on."""
    curve = ConvexCurve.of(Sensitivity(np.array([1, 0.5, 0.25, 0.125]), np.array([[0.0, 2, 2, 2]])), 0)
    wished = np.linspace(0.03, 1, 400)
    assert (np.diff(curve(wished), 2) > -1e-9).all()
    assert curve(np.array([0.125, 1.0])) == pytest.approx([2, 0], abs=1e-9)
