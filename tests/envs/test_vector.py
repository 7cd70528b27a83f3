"""The vectorised environment is the single one, many times."""

import numpy as np
import pytest
from toys import make_short_spec, make_spec, score

from rlprune.envs.channel_pruning import ChannelPruningEnv
from rlprune.envs.vector import WalkVecEnv


def test_equals_single_environments() -> None:
    """BatchedEpisodes of two budgets go in one array, each with its own spec and score."""
    specs, scores = [make_spec("macs=0.5"), make_spec("macs=0.2")], [score, lambda counts: 2 * score(counts)]
    vector = WalkVecEnv(specs, scores, 2)
    singles = [ChannelPruningEnv(spec, each) for spec, each in zip(specs, scores, strict=True) for _ in range(2)]
    rng = np.random.default_rng(0)
    observed = vector.reset()
    starts = np.array([env.reset()[0] for env in singles])
    np.testing.assert_array_equal(observed, starts)
    for step in range(3):
        actions = rng.uniform(-1, 1, (4, 1)).astype(np.float32)
        observed, rewards, dones, infos = vector.step(actions)
        expected = [env.step(action) for env, action in zip(singles, actions, strict=True)]
        assert rewards == pytest.approx([entry[1] for entry in expected], rel=1e-6)
        assert dones.tolist() == [entry[2] for entry in expected]
        if step < 2:
            np.testing.assert_array_equal(observed, np.array([entry[0] for entry in expected]))
    # A finished walk has started again, and its last observation is kept aside.
    np.testing.assert_array_equal(observed, starts)
    assert all("terminal_observation" in info for info in infos)
    assert len({entry[1] for entry in expected}) > 1


def test_walks_of_several_lengths_start_again_when_they_end() -> None:
    """A network of two groups beside one of three: the short walks are at their second one when the long ones end."""
    specs, scores = [make_spec(), make_short_spec()], [score, score]
    vector = WalkVecEnv(specs, scores, 1)
    singles = [ChannelPruningEnv(spec, each) for spec, each in zip(specs, scores, strict=True)]
    np.testing.assert_array_equal(vector.reset(), [env.reset()[0] for env in singles])
    ends = []
    for action in np.random.default_rng(0).uniform(-1, 1, (6, 2, 1)).astype(np.float32):
        observed, rewards, dones, infos = vector.step(action)
        for place, env in enumerate(singles):
            expected, reward, finished, _, _ = env.step(action[place])
            assert (rewards[place], dones[place]) == (pytest.approx(reward, rel=1e-6), finished)
            assert ("episode" in infos[place]) == finished
            np.testing.assert_array_equal(observed[place], env.reset()[0] if finished else expected)
        ends.append(dones.tolist())
    assert ends == [[False, False], [False, True], [True, False], [False, True], [False, False], [True, True]]


def test_single_walks_cannot_be_reached() -> None:
    vector = WalkVecEnv([make_spec()], [score], 2)
    assert vector.env_is_wrapped(object) == [False, False]
    with pytest.raises(AttributeError, match="share what they act on"):
        vector.set_attr("score", None)
    with pytest.raises(AttributeError, match="arrays"):
        vector.env_method("reset")


def test_wrong_actions_and_scores_are_told() -> None:
    vector = WalkVecEnv([make_spec()], [lambda counts: np.full(len(counts), np.nan)], 2)
    for actions in (np.array([[0.0], [np.nan]]), np.zeros((3, 1)), np.zeros((1, 2)), None):
        with pytest.raises(ValueError, match=r"^the action"):
            vector.step_async(actions)
    for _ in range(2):
        vector.step(np.zeros((2, 1)))
    with pytest.raises(ValueError, match=r"^score returned \[nan, nan\]"):
        vector.step(np.zeros((2, 1)))
