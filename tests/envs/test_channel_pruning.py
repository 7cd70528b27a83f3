"""The Gymnasium environment passes both libraries' checkers and pays at the end."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from stable_baselines3.common.env_checker import check_env as sb3_check
from toys import make_spec, score

from rlprune.envs import ENVIRONMENT_ID


def test_passes_both_checkers() -> None:
    env = gym.make(ENVIRONMENT_ID, spec=make_spec(), score=score)
    gymnasium_check(env.unwrapped, skip_render_check=True)
    sb3_check(env.unwrapped)


def test_reward_comes_at_the_end_and_is_the_gain_over_the_base_plan() -> None:
    env = gym.make(ENVIRONMENT_ID, spec=make_spec(), score=score)
    env.reset(seed=0)
    for _ in range(2):
        _, reward, terminated, truncated, _ = env.step(np.zeros(1, dtype=np.float32))
        assert (reward, terminated, truncated) == (0, False, False)
    _, reward, terminated, _, info = env.step(np.zeros(1, dtype=np.float32))
    assert terminated
    assert info["loss"] == pytest.approx(1 / info["counts"].sum())
    assert reward == pytest.approx(-info["loss"] + 1.0)
