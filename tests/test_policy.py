"""A policy on disk walks as the agent that was saved."""

from pathlib import Path

import numpy as np
import pytest
from toys import make_task, score

from rlprune.agents.agents import AGENTS, make_agent
from rlprune.agents.policy import load_policy, save_policy, walk_policy
from rlprune.envs.vector import WalkVecEnv
from rlprune.errors import UserError


@pytest.mark.parametrize("name", AGENTS)
def test_round_trip(name: str, tmp_path: Path) -> None:
    task = make_task()
    agent = make_agent(name, WalkVecEnv([task], [score], 8), 3, seed=0)
    agent.learn(8 * 3 * 4)
    save_policy(agent, name, task, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"policy.safetensors", "policy.json", "agent.zip"}
    again = load_policy(tmp_path, task)
    observations = np.random.default_rng(0).normal(0, 1, (20, agent.observation_space.shape[0])).astype(np.float32)
    np.testing.assert_array_equal(
        again.predict(observations, deterministic=True)[0], agent.predict(observations, deterministic=True)[0]
    )
    assert walk_policy(again, task).tolist() == walk_policy(agent, task).tolist()


def test_walks_under_another_budget(tmp_path: Path) -> None:
    agent = make_agent("ppo", WalkVecEnv([make_task()], [score], 8), 3, seed=0)
    save_policy(agent, "ppo", make_task(), tmp_path)
    tight = make_task("macs=0.2")
    counts = walk_policy(load_policy(tmp_path, tight), tight)
    assert tight.lander.fits(counts)


def test_refuses_what_is_no_policy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        load_policy(tmp_path, make_task())
    task = make_task()
    save_policy(make_agent("ppo", WalkVecEnv([task], [score], 2), 3, seed=0), "ppo", task, tmp_path)
    (tmp_path / "policy.safetensors").write_bytes(b"junk")
    with pytest.raises(UserError, match="cannot read the policy"):
        load_policy(tmp_path, task)
    path = tmp_path / "policy.json"
    path.write_text(path.read_text().replace("nothing", "something"))
    with pytest.raises(UserError, match="other observations"):
        load_policy(tmp_path, task)
