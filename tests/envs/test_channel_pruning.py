"""The Gymnasium environment passes both libraries' checkers, pays at the end, and says what is wrong."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from stable_baselines3.common.env_checker import check_env as sb3_check
from toys import make_spec, score

from rlprune.envs import ENVIRONMENT_ID
from rlprune.envs.channel_pruning import ChannelPruningEnv
from rlprune.plans.plan import PruningPlan

STAY = np.zeros(1, dtype=np.float32)


def plan_of(counts: np.ndarray) -> PruningPlan:
    names = [f"group {number}" for number in range(len(counts))]
    kept = {name: tuple(range(count)) for name, count in zip(names, counts.tolist(), strict=True)}
    return PruningPlan(kept, dict.fromkeys(names, 8))


def make_env(score: Callable[[np.ndarray], Any] = score, **more: Any) -> ChannelPruningEnv:
    return ChannelPruningEnv(make_spec(), score, **more)


def walk(env: ChannelPruningEnv) -> dict[str, Any]:
    """One episode without a change; what the last step tells."""
    env.reset()
    return [env.step(STAY)[-1] for _ in range(3)][-1]


@pytest.mark.parametrize("render_mode", [None, "ansi"])
def test_passes_both_checkers(render_mode: str | None) -> None:
    env = gym.make(ENVIRONMENT_ID, spec=make_spec(), score=score, render_mode=render_mode)
    gymnasium_check(env.unwrapped)
    sb3_check(env.unwrapped)


def test_reward_comes_at_the_end_and_is_the_gain_over_the_base_plan() -> None:
    env = gym.make(ENVIRONMENT_ID, spec=make_spec(), score=score)
    env.reset(seed=0)
    for _ in range(2):
        _, reward, terminated, truncated, _ = env.step(STAY)
        assert (reward, terminated, truncated) == (0, False, False)
    _, reward, terminated, _, info = env.step(STAY)
    assert terminated
    assert info["loss"] == pytest.approx(1 / info["counts"].sum())
    assert reward == pytest.approx(-info["loss"] + 1.0)


def test_steps_belong_to_an_episode() -> None:
    env = make_env()
    with pytest.raises(ValueError, match=r"^no episode is under way: call reset\(\) before step\(\)"):
        env.step(STAY)
    walk(env)
    with pytest.raises(ValueError, match=r"^the episode is over: all 3 groups are decided; call reset\(\)"):
        env.step(STAY)
    assert walk(env)["counts"].sum() > 0


@pytest.mark.parametrize("action", [[float("nan")], [np.inf], [0.0, 0.0], 0.0, None])
def test_a_wrong_action_is_no_step(action: Any) -> None:
    env = make_env()
    env.reset()
    with pytest.raises(ValueError, match=r"^the action"):
        env.step(action)
    assert env.walk.step_index == 0


@pytest.mark.parametrize("found", [None, [], [1.0, 2.0], [float("nan")], 1.0])
def test_an_odd_score_is_told(found: Any) -> None:
    with pytest.raises(ValueError, match=r"^score returned"):
        walk(make_env(lambda counts: found))


def test_a_score_may_return_a_list_and_do_as_it_likes_with_the_plan() -> None:
    def listed(counts: np.ndarray) -> list[float]:
        found = (1 / counts.sum(axis=1)).tolist()
        counts[:] = 0
        return found

    found, expected = walk(make_env(listed)), walk(make_env())
    assert found["counts"].tolist() == expected["counts"].tolist()
    assert found["loss"] == expected["loss"]


def test_it_is_drawn_as_text_where_that_is_asked_for() -> None:
    env = make_env(render_mode="ansi")
    env.reset()
    env.step(STAY)
    assert str(env.render()).splitlines()[1:3] == ["group 0         8     6  75.0 %", "group 1         8  next       -"]
    assert make_env().render() is None
    with pytest.raises(ValueError, match=r"^render_mode is 'human': expected 'ansi' or None"):
        make_env(render_mode="human")


def test_the_plan_is_that_of_the_last_finished_episode() -> None:
    env = make_env(plan_of=plan_of)
    with pytest.raises(ValueError, match=r"^no episode has finished yet"):
        env.plan()
    counts = walk(env)["counts"]
    env.reset()
    env.step(np.array([-1.0]))
    assert env.plan().counts().tolist() == counts.tolist()
    with pytest.raises(ValueError, match=r"make the environment by rlprune\.make_env"):
        make_env().plan()
