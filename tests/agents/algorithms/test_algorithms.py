"""Every agent starts on the base plan."""

import numpy as np
import pytest
from toys import make_spec, score

from rlprune import registry
from rlprune.envs.vector import WalkVecEnv
from rlprune.errors import UserError


@pytest.mark.parametrize("name", registry.names("agent"))
def test_the_first_policy_is_the_base_plan(name: str) -> None:
    agent = registry.make("agent", name).make(WalkVecEnv([make_spec()], [score], 4), 3, seed=0)
    observations = np.random.default_rng(0).normal(0, 1, (50, agent.observation_space.shape[0])).astype(np.float32)
    actions, _ = agent.predict(observations, deterministic=True)
    assert np.abs(actions).max() < 0.05


@pytest.mark.parametrize("name", registry.names("agent"))
def test_same_seed_same_agent(name: str) -> None:
    def draw() -> np.ndarray:
        agent = registry.make("agent", name).make(WalkVecEnv([make_spec()], [score], 4), 3, seed=3)
        agent.learn(60)
        observations = np.zeros((2, agent.observation_space.shape[0]), dtype=np.float32)
        return agent.predict(observations, deterministic=True)[0]

    np.testing.assert_array_equal(draw(), draw())


def test_unknown_agent() -> None:
    with pytest.raises(UserError, match="did you mean 'ppo'"):
        registry.make("agent", "pppo").make(WalkVecEnv([make_spec()], [score], 1), 3, seed=0)
