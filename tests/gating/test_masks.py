"""Merged masks, against examples by hand and a count with sets."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlprune.gating.masks import kept_count, lowest, merge, permanent, removed_count


@pytest.mark.parametrize(
    ("ratio", "channels", "kept"),
    [(0.5, 8, 4), (0.5, 7, 4), (0.51, 8, 5), (0.01, 8, 1), (1.0, 8, 8), (0.3, 10, 3), (0.7, 10, 7), (0.1 + 0.2, 10, 3)],
)
def test_a_ratio_is_rounded_up(ratio: float, channels: int, kept: int) -> None:
    assert kept_count(np.array([ratio]), channels).tolist() == [kept]


@pytest.mark.parametrize(
    ("keep", "mix", "gone"), [(0.5, 0.5, 2), (0.5, 0.0, 4), (0.5, 1.0, 0), (0.5, 0.3, 2), (0.6, 0.5, 1), (1.0, 0.0, 0)]
)
def test_what_is_removed_for_good_is_rounded_down(keep: float, mix: float, gone: int) -> None:
    assert removed_count(np.array([keep]), 8, mix).tolist() == [gone]


def test_of_equal_scores_the_first_go() -> None:
    scores = np.array([[2.0, 1.0, 1.0, 1.0]])
    assert lowest(scores, np.array([2])).tolist() == [[False, True, True, False]]


def one(runtime: list[float], static: list[float], keep_runtime: float, keep_static: float, mix: float) -> list[int]:
    """Positions of the channels that run for a single image."""
    mask = merge(np.array([runtime]), np.array(static), np.array([keep_runtime]), np.array([keep_static]), mix)
    return np.flatnonzero(mask[0]).tolist()


def test_the_rule_by_hand() -> None:
    # The runtime agent wants 0, 1, 2, 3 gone, the static agent 2, 3, 4, 5: both want 2 and 3 gone.
    runtime = [1.0, 2, 3, 4, 5, 6, 7, 8]
    static = [5.0, 6, 1, 2, 3, 4, 7, 8]
    assert one(runtime, static, 0.5, 0.5, 0.5) == [1, 5, 6, 7]
    # Of 0 and 1 none, of 4 and 5 both, and the other way round.
    assert one(runtime, static, 0.5, 0.5, 0.0) == [0, 1, 6, 7]
    assert one(runtime, static, 0.5, 0.5, 1.0) == [4, 5, 6, 7]
    # floor(0.4 * 2) = 0 of 0 and 1, floor(0.6 * 2) = 1 of 4 and 5.
    assert one(runtime, static, 0.5, 0.5, 0.4) == [0, 1, 5, 6, 7]


def test_what_is_removed_for_good_never_runs_where_the_published_rule_lets_it() -> None:
    # Both want 2 and 3 gone; of 4 and 5 the runtime agent gets 4, of 0 and 1 the static agent gets 0: by the published
    # rule 1 runs. But of the four that the static agent wants gone, the lowest two are removed for good: 0 and 1.
    runtime = [8.0, 7, 1, 2, 3, 4, 6, 5]
    static = [1.0, 2, 3, 4, 5, 6, 7, 8]
    assert permanent(np.array([static]), np.array([0.5]), 0.5)[0].tolist() == [True] * 2 + [False] * 6
    assert one(runtime, static, 0.5, 0.5, 0.5) == [5, 6, 7]


def by_sets(runtime: list[float], static: list[float], d_r: float, d_s: float, mix: float) -> set[int]:
    """The rule in the words of the paper, with sets."""
    channels = len(runtime)
    ranked = {name: sorted(range(channels), key=lambda c: (scores[c], c)) for name, scores in
              (("r", runtime), ("s", static))}  # fmt: skip
    off_r = set(ranked["r"][: channels - max(1, math.ceil(d_r * channels - 1e-6))])
    off_s = set(ranked["s"][: channels - max(1, math.ceil(d_s * channels - 1e-6))])
    if mix == 1:
        return set(range(channels)) - off_r
    alone_r = [c for c in ranked["r"] if c in off_r - off_s]
    alone_s = [c for c in ranked["s"] if c in off_s - off_r]
    gone = (off_r & off_s) | set(alone_r[: math.floor(mix * len(alone_r) + 1e-6)])
    gone |= set(alone_s[: math.floor((1 - mix) * len(alone_s) + 1e-6)])
    gone |= set(ranked["s"][: math.floor((1 - mix) * len(off_s) + 1e-6)])
    return set(range(channels)) - gone


SCORES = st.integers(1, 12).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(-5, 5).map(float), min_size=n, max_size=n)] * 2)
)
RATIO = st.floats(0.01, 1)


@given(SCORES, RATIO, RATIO, st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
def test_the_rule_in_general(scores: tuple[list[float], list[float]], d_r: float, d_s: float, mix: float) -> None:
    runs, expected = set(one(*scores, d_r, d_s, mix)), by_sets(*scores, d_r, d_s, mix)
    assert runs
    if expected:
        assert runs == expected
    stored = ~permanent(np.array([scores[1]]), np.array([d_s]), mix)[0]
    assert runs <= set(np.flatnonzero(stored).tolist())


@given(SCORES, RATIO, RATIO)
def test_the_ends(scores: tuple[list[float], list[float]], d_r: float, d_s: float) -> None:
    runtime, static = scores
    still, free = one(runtime, static, d_r, d_s, 0.0), one(runtime, static, d_r, d_s, 1.0)
    assert still == one([0.0] * len(runtime), static, 1.0, d_s, 0.0)
    assert len(still) == kept_count(np.array([d_s]), len(static))[0]
    assert len(free) == kept_count(np.array([d_r]), len(static))[0]
    assert not permanent(np.array([static]), np.array([d_s]), 1.0).any()


def test_every_image_for_itself() -> None:
    rng = np.random.default_rng(0)
    runtime, static, keeps = rng.random((6, 9)), rng.random(9), rng.uniform(0.1, 1, 6)
    together = merge(runtime, static, keeps, keeps[::-1], 0.5)
    for number in range(6):
        alone = merge(runtime[[number]], static, keeps[[number]], keeps[::-1][[number]], 0.5)
        np.testing.assert_array_equal(together[number], alone[0])
