"""The vectorised environment is the single one, many times."""

import numpy as np
import pytest
from toys import make_task, score

from rlprune.envs.channel_pruning import ChannelPruningEnv
from rlprune.envs.vector import WalkVecEnv


def test_equals_single_environments() -> None:
    told: list[np.ndarray] = []
    vector = WalkVecEnv(make_task(), score, 4, lambda counts, losses: told.append(counts.copy()))
    singles = [ChannelPruningEnv(make_task(), score) for _ in range(4)]
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
    assert [plan.tolist() for plan in told[0]] == [entry[4]["counts"].tolist() for entry in expected]


def test_single_walks_cannot_be_reached() -> None:
    vector = WalkVecEnv(make_task(), score, 2)
    assert vector.env_is_wrapped(object) == [False, False]
    with pytest.raises(AttributeError, match="share one task"):
        vector.set_attr("score", None)
    with pytest.raises(AttributeError, match="arrays"):
        vector.env_method("reset")
