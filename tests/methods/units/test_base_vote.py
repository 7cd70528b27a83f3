"""A vote worked out by hand."""

import numpy as np
import pytest

from rlprune.methods.units.base_vote import magnitude_increase, vote, winner

A = ((0, 1), (2, 3), (4, 5))
B = ((0, 5), (1, 4), (2, 3))
C = ((0, 2), (1, 3), (4, 5))


def test_what_a_filter_has_changed_in_size() -> None:
    final, then = np.array([[1.0, -2.0], [0.5, 0.0]]), np.array([[-1.0, 1.0], [0.0, -0.5]])
    assert magnitude_increase(final, then).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("increase", "place"),
    [
        # Sums A 3, 7, 11 with gaps 4 and 4; B 7, 7, 7 with gaps 0 and 0; C 4, 6, 11 with gaps 2 and 5.
        # Ranks of the means 3.5 (A and C: 2.5 each) and 0 (B: 1), of the variances A and B 1.5, C 3: B has 2, A 2.75.
        ([1, 2, 3, 4, 5, 6], 1),
        # Sums A 2, 6, 10; B 1, 6, 11; C 4, 4, 10: means 4, 5, 3, variances 0, 0, 9; A 1 + 1.5, B 1.5 + 1.5, C .5 + 3.
        ([1, 1, 3, 3, 10, 0], 0),
    ],
)
def test_one_snapshot_prefers_even_and_small_gaps(increase: list[float], place: int) -> None:
    assert winner(np.array(increase, dtype=float), [A, B, C]) == place


def snapshot(increase: list[float]) -> np.ndarray:
    """What has that far to go to filters of a single weight, 20."""
    return 20 - np.array(increase, dtype=float)[:, None]


FINAL = np.full((6, 1), 20.0)
FOR_A, FOR_B = snapshot([1, 1, 3, 3, 10, 0]), snapshot([1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize(
    ("snapshots", "place"),
    [
        ([FOR_A], 0),
        ([FOR_B, FOR_A, FOR_B], 1),
        # A tie, in which B was preferred twice in a row.
        ([FOR_A, FOR_B, FOR_B, FOR_A], 1),
        ([FOR_B, FOR_A, FOR_A, FOR_B], 0),
        # A tie of that, too: the first.
        ([FOR_B, FOR_A], 0),
    ],
)
def test_most_snapshots_win(snapshots: list[np.ndarray], place: int) -> None:
    assert vote(FINAL, snapshots, [A, B, C]) == place
