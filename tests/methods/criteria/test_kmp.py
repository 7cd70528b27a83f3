"""The fixed point of a training."""

from pathlib import Path

import numpy as np
import pytest
from scoring import coupled, scores_of
from trajectories import Weights, decaying, shares, weights, write


@pytest.mark.parametrize("block", [7, 2**18])
def test_scores_are_magnitudes_of_the_fixed_point(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlprune.methods.criteria.base_snapshots.BLOCK", block)
    fixed, slow, fast = (weights(seed) for seed in range(3))
    folder = write(tmp_path, decaying((1, fixed), (0.9, slow), (0.6, fast)))
    assert scores_of(f"kmp:snapshots={folder}", coupled())["stem"] == pytest.approx(shares(fixed), rel=1e-3)


def test_of_a_training_that_has_converged_it_is_l1(tmp_path: Path) -> None:
    net = coupled()
    change = weights(0)
    folder = write(
        tmp_path, lambda t: {name: net.state_dict()[name] + 0.1 * 0.2**t * change[name] for name in change}, steps=9
    )
    scores, others = scores_of(f"kmp:snapshots={folder}", net), scores_of("l1", net)
    for group in others:
        assert (np.argsort(scores[group]) == np.argsort(others[group])).all()
        assert scores[group] == pytest.approx(others[group], rel=1e-3)


def test_a_fixed_point_that_turns(tmp_path: Path) -> None:
    """Where no eigenvalue is real, those nearest 1 are a pair, whose mode has the magnitude of both directions."""
    one, other = weights(0), weights(1)

    def at(t: int) -> Weights:
        return {name: 0.99**t * (np.cos(0.05 * t) * one[name] + np.sin(0.05 * t) * other[name]) for name in one}

    folder = write(tmp_path, at, steps=20)
    turning = {name: (one[name].square() + other[name].square()).sqrt() for name in one}
    assert scores_of(f"kmp:snapshots={folder}", coupled())["stem"] == pytest.approx(shares(turning), rel=1e-2)
