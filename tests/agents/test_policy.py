"""A policy on disk walks as the agent that was saved, without the library that trained it."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import make_spec, score

from rlprune import registry
from rlprune.agents.policy import Policy, find_policy, layers_of, load_policy, save_agent
from rlprune.agents.rollout import greedy, rollout
from rlprune.agents.transfer import SourceNetwork
from rlprune.envs.vector import WalkVecEnv
from rlprune.errors import UserError
from rlprune.evaluation.sensitivity import Sensitivity


def policy_of(agent: Any, name: str) -> Policy:
    """What is kept of an agent that has walked the toy network."""
    spec = make_spec()
    curves = Sensitivity(np.array([1.0, 0.5]), np.array([[0, 0.1], [0, 0.2], [0, 1 / 3]]))
    channels, facts = {"0": 8, "1": 8, "2": 8}, np.array([[0.1], [0.2], [2 / 3]])
    inputs = {"dense weights": "a", "images": "b"}
    source = SourceNetwork(
        {"model": "toy", "args": {}}, "digits", inputs, channels, spec.features.names[:1], facts, curves, "uniform"
    )
    layers, end = layers_of(agent)
    return Policy(
        name,
        layers,
        end,
        spec.reach,
        spec.features.names,
        {"seed": 3},
        {"rlprune": "0"},
        (source, replace(source, data="cifar10")),
    )


@pytest.mark.parametrize("name", registry.names("agent"))
def test_it_acts_as_the_agent_does(name: str, tmp_path: Path) -> None:
    spec = make_spec()
    agent = registry.make("agent", name).make(WalkVecEnv([spec], [score], 8), 3, seed=0)
    agent.learn(8 * 3 * 4)
    # Its first steps are tiny: make some of the actions large, so that what follows the last layer is seen.
    policy: Any = agent.policy
    for parameter in (policy.actor if hasattr(policy, "actor") else policy).parameters():
        parameter.data.mul_(3)
    save_agent(agent, policy_of(agent, name), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"policy.safetensors", "policy.json", "agent.zip"}
    again = load_policy(tmp_path)
    observations = np.random.default_rng(0).normal(0, 1, (200, policy.observation_space.shape[0])).astype(np.float32)
    actions = agent.predict(observations, deterministic=True)[0].reshape(-1)
    assert 0.2 < np.abs(actions).max() <= 1
    np.testing.assert_allclose(again.act(observations), actions, rtol=0, atol=1e-6)
    assert again.walk(spec).tolist() == rollout(greedy(agent), spec, 1)[1][0].tolist()


@pytest.fixture(scope="module")
def ppo() -> Any:
    return registry.make("agent", "ppo").make(WalkVecEnv([make_spec()], [score], 8), 3, seed=0)


def test_it_remembers_its_homes(ppo: Any, tmp_path: Path) -> None:
    saved = policy_of(ppo, "ppo")
    saved.save(tmp_path)
    found = load_policy(tmp_path)
    assert (found.agent, found.end, found.reach, found.names) == ("ppo", "clip", saved.reach, saved.names)
    assert (found.settings, found.provenance) == ({"seed": 3}, {"rlprune": "0"})
    assert [source.data for source in found.sources] == ["digits", "cifar10"]
    for there, here in zip(found.sources, saved.sources, strict=True):
        for name in ("network", "data", "inputs", "channels", "names", "base"):
            assert getattr(there, name) == getattr(here, name)
        np.testing.assert_array_equal(there.facts, here.facts)
        np.testing.assert_array_equal(there.sensitivity.rises, here.sensitivity.rises)
        np.testing.assert_array_equal(there.sensitivity.ratios, here.sensitivity.ratios)


def test_it_walks_under_another_budget(ppo: Any) -> None:
    tight = make_spec("macs=0.2")
    assert tight.projector.fits(policy_of(ppo, "ppo").walk(tight))


def test_it_is_found_in_a_run_and_alone(ppo: Any, tmp_path: Path) -> None:
    policy_of(ppo, "ppo").save(tmp_path / "run" / "policy")
    assert find_policy(tmp_path / "run") == find_policy(tmp_path / "run" / "policy") == tmp_path / "run" / "policy"
    with pytest.raises(UserError, match="holds no policy: expected a run folder whose search has ended, or its policy"):
        find_policy(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "has format version 2; this rlprune reads from 3 on: make it anew"),
        ({"version": 9}, "has format version 9; this rlprune reads up to 4"),
        ({"observation": {"version": 7}}, "sees observations of version 7, and this rlprune shows those of version 1"),
        ({"observation": 3}, "is not a complete policy"),
        ({"homes": [{}]}, "is not a complete policy: KeyError"),
        ({"sizes": [10**12, 64, 64, 1]}, "is not a complete policy"),
        ({"homes": []}, "is not a complete policy: ValueError"),
        ({"end": "sine"}, "is not a complete policy"),
        ({"sizes": [12, 64, 64, 2]}, "is not a complete policy"),
        ({"sizes": [12, 32, 64, 1]}, r"policy.safetensors does not fit policy.json beside it"),
        ({"reach": 0}, "is not a complete policy"),
    ],
    ids=repr,
)
def test_files_that_cannot_be_used(ppo: Any, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    policy_of(ppo, "ppo").save(tmp_path)
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=said):
        load_policy(tmp_path)


def test_weights_that_cannot_be_used(ppo: Any, tmp_path: Path) -> None:
    policy_of(ppo, "ppo").save(tmp_path)
    (tmp_path / "policy.safetensors").write_bytes(b"junk")
    with pytest.raises(UserError, match="truncated or no checkpoint"):
        load_policy(tmp_path)


def test_other_observations_are_refused(ppo: Any) -> None:
    spec = make_spec()
    fewer = replace(spec.features, names=("nothing", *(f"other_{i}" for i in range(9))))
    with pytest.raises(UserError, match="trained to see 'dynamic_0', which is not shown here: search anew"):
        policy_of(ppo, "ppo").walk(replace(spec, features=fewer))


def test_neither_the_training_library_nor_pickle_is_needed() -> None:
    code = "import sys, rlprune.pipeline.replay; print([name for name in sys.modules if 'stable_baselines3' in name])"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
