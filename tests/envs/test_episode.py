"""The walk by hand on a network of three convolutions, and what must hold on every walk."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import macs, make_spec

from rlprune.envs.episode import BatchedEpisodes


def test_the_walk_by_hand() -> None:
    """Dense: 8 + 64 + 64 + 16 = 152 MACs, so 76 may stay."""
    spec = make_spec()
    walks = BatchedEpisodes(spec, 1)
    # Rescaled evenly, 5 5 5 costs 65 and 6 6 6 costs 90: the wish for the first group is 6 - epsilon, rounded to 6.
    assert walks.wished()[0, 0] == pytest.approx(6, abs=0.05)
    assert not walks.step(np.zeros(1))
    assert walks.counts[0, 0] == 6
    # With 6 decided, 5 5 costs 6 + 30 + 25 + 10 = 71 and 6 6 costs 90: again the wish is 6 - epsilon.
    assert walks.wished()[0, 1] == pytest.approx(6, abs=0.05)
    # One fewer than wished: exp(-0.2) * 6 = 4.9, rounded to 5.
    assert not walks.step(np.array([-0.2]))
    assert walks.counts[0, 1] == 5
    # 6 + 30 + 7 c <= 76 leaves c = 5.
    assert walks.step(np.zeros(1))
    assert walks.counts[0].tolist() == [6, 5, 5]
    assert spec.projector.cost(walks.counts[0])[0] == macs(6, 5, 5) == 71


def test_a_greedy_first_decision_leaves_the_rest_their_minimum() -> None:
    """An action far beyond the budget is cut to what still lets every later group keep one channel."""
    walks = BatchedEpisodes(make_spec("macs=0.12", reach=5.0), 1)
    walks.step(np.ones(1))
    # a + a + 1 + 2 <= 18.24 leaves a = 7.
    assert walks.counts[0, 0] == 7


def test_observation_says_what_is_used_and_left() -> None:
    walks = BatchedEpisodes(make_spec(), 1)
    walks.step(np.array([0.25]))
    observation = walks.observe()[0]
    decided = int(walks.counts[0, 0])
    used = macs(decided, 1, 1) / 152 / 0.5
    assert observation[3] == pytest.approx(0.25)
    assert observation[6] == pytest.approx(used, rel=1e-5)
    assert observation[8] == pytest.approx(1 - used, rel=1e-5)
    assert observation[10:12] == pytest.approx([0.5, 1.0])


def test_observation_says_what_the_neighbours_keep() -> None:
    """Of a chain of three the second reads the first, which is decided, and the third, still to come, reads the second.

    The third is wished with the base plan's 8 channels times the factor that what is left of 76 MACs allows.
    """
    spec = make_spec()
    chain = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=float)
    walks = BatchedEpisodes(replace(spec, features=replace(spec.features, neighbours=np.stack([chain, chain.T]))), 1)
    assert walks.observe()[0, 4] == 0
    walks.step(np.array([-0.5]))
    observation = walks.observe()[0]
    assert observation[4] == pytest.approx(walks.counts[0, 0] / 8)
    assert observation[5] == pytest.approx(min(8 * walks.factor[0], 8) / 8)
    walks.step(np.array([-0.5]))
    assert walks.observe()[0, 4:6] == pytest.approx([walks.counts[0, 1] / 8, 0])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3), st.floats(0.1, 1.0))
def test_every_walk_ends_inside_the_budget_and_one_more_channel_does_not_fit(
    actions: list[float], limit: float
) -> None:
    walks = BatchedEpisodes(make_spec(f"macs={limit}"), 2)
    for action in actions:
        walks.step(np.array([action, -action]))
    for plan in walks.counts:
        assert macs(*plan) <= limit * 152 + 1e-6
        for group in range(3):
            more = plan.copy()
            more[group] += 1
            assert more[group] > 8 or macs(*more) > limit * 152


def test_walks_side_by_side_equal_single_ones() -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (5, 3))
    together = BatchedEpisodes(make_spec(), 5)
    for step in range(3):
        together.step(actions[:, step])
    for row in range(5):
        alone = BatchedEpisodes(make_spec(), 1)
        for step in range(3):
            alone.step(actions[row, step : step + 1])
        assert alone.counts[0].tolist() == together.counts[row].tolist()


def test_balance_keeps_less_than_the_budget_allows() -> None:
    """Without a hard budget to use up, a zero action stays on the base plan and nothing is filled."""
    spec = make_spec("macs=0.9", base=(4, 3, 2), balance=True, weights=np.array([1.0, 0.0]))
    walks = BatchedEpisodes(spec, 1)
    for _ in range(3):
        walks.step(np.zeros(1))
    assert walks.counts[0].tolist() == [4, 3, 2]
    expected = -0.7 - macs(4, 3, 2) / 152
    assert spec.value(walks.counts, np.array([0.7]))[0] == pytest.approx(expected)
    assert spec.reward(walks.counts, np.array([0.7]))[0] == pytest.approx(expected + 1.0)


def test_balance_is_cut_to_an_upper_bound() -> None:
    spec = make_spec("macs=0.3", base=(8, 8, 8), balance=True, weights=np.array([0.1, 0.0]))
    walks = BatchedEpisodes(spec, 1)
    for _ in range(3):
        walks.step(np.ones(1))
    assert macs(*walks.counts[0]) <= 0.3 * 152


def test_finish_lands_all_groups_at_once() -> None:
    spec = make_spec()
    assert macs(*spec.finish(np.array([[8.0, 8.0, 8.0]]))[0]) in range(71, 77)
