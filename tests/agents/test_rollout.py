"""BatchedEpisodes outside of training go where they are sent."""

import numpy as np
import pytest
from toys import make_spec, score

from rlprune import registry
from rlprune.agents.rollout import greedy, rollout
from rlprune.envs.channel_pruning import ChannelPruningEnv
from rlprune.envs.vector import WalkVecEnv


def test_a_rollout_is_a_walk_of_the_environment() -> None:
    wishes = np.array([[0.5, -1.0], [3.0, 0.2], [-0.3, 0.0]])
    steps = iter(wishes)
    actions, plans = rollout(lambda seen: next(steps), make_spec(), 2)
    np.testing.assert_array_equal(actions, np.clip(wishes, -1, 1))
    for walk in range(2):
        env = ChannelPruningEnv(make_spec(), score)
        env.reset()
        for action in actions[:, walk]:
            _, _, finished, _, info = env.step(np.array([action]))
        assert finished
        assert plans[walk].tolist() == info["counts"].tolist()


@pytest.mark.parametrize("name", registry.names("agent"))
def test_without_exploration_all_walks_are_one(name: str) -> None:
    agent = registry.make("agent", name).make(WalkVecEnv([make_spec()], [score], 4), 3, seed=0)
    assert len(np.unique(rollout(greedy(agent), make_spec(), 5)[1], axis=0)) == 1
