"""The slowest change that dies out in a training."""

from pathlib import Path

import numpy as np
import pytest
from scoring import coupled, scores_of
from trajectories import Weights, decaying, shares, weights, write

from rlprune.errors import UserError


def test_scores_are_magnitudes_of_the_slowest_change(tmp_path: Path) -> None:
    fixed, slow, fast = (weights(seed) for seed in range(3))
    folder = write(tmp_path, decaying((1, fixed), (0.9, slow), (0.6, fast)))
    assert scores_of(f"kgp:snapshots={folder}", coupled())["stem"] == pytest.approx(shares(slow), rel=1e-3)


def test_late_steps_go_along_it(tmp_path: Path) -> None:
    """As the gradient does, of which they are multiples in plain gradient descent."""
    fixed, slow, fast = (weights(seed) for seed in range(3))
    at = decaying((1, fixed), (0.9, slow), (0.3, fast))
    step = {name: at(9)[name] - at(8)[name] for name in fixed}
    folder = write(tmp_path, at, steps=10)
    assert scores_of(f"kgp:snapshots={folder}", coupled())["stem"] == pytest.approx(shares(step), rel=1e-2)


def test_the_conjugate_of_the_fixed_point_does_not_count(tmp_path: Path) -> None:
    one, other, slow = (weights(seed) for seed in range(3))

    def at(t: int) -> Weights:
        cos, sin = 0.99**t * np.cos(0.05 * t), 0.99**t * np.sin(0.05 * t)
        return {name: cos * one[name] + sin * other[name] + 0.7**t * slow[name] for name in one}

    folder = write(tmp_path, at, steps=20)
    assert scores_of(f"kgp:snapshots={folder}", coupled())["stem"] == pytest.approx(shares(slow), rel=1e-2)


@pytest.mark.parametrize("rate", [1, 1.3])
def test_where_nothing_dies_out(tmp_path: Path, rate: float) -> None:
    folder = write(tmp_path, decaying((1, weights(0)), (rate, weights(1))))
    with pytest.raises(UserError, match=r"kgp: nothing dies out over the snapshots in .*: take snapshots of"):
        scores_of(f"kgp:snapshots={folder}", coupled())
