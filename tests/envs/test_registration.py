"""Gymnasium knows the environment, whichever package is imported first, and importing ours stays cheap."""

import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest
from toys import make_spec, score

from rlprune.envs import ENVIRONMENT_ID
from rlprune.envs.channel_pruning import ChannelPruningEnv

ROOT = Path(__file__).parents[2]
KNOWN = "print(sum(name == 'rlprune/ChannelPruning-v0' for name in gymnasium.registry))"


def said(program: str) -> list[str]:
    """What a new interpreter prints, to which every warning is an error."""
    asked = [sys.executable, "-W", "error", "-c", program]
    return subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("order", ["rlprune, gymnasium", "gymnasium, rlprune", "rlprune, gymnasium, rlprune.envs"])
def test_either_may_be_imported_first(order: str) -> None:
    assert said(f"import {order}; {KNOWN}") == ["1"]


def test_importing_ours_brings_nothing_heavy() -> None:
    program = "import rlprune, sys; print([name for name in ('gymnasium', 'torch', 'numpy') if name in sys.modules])"
    assert said(program) == ["[]"]


def test_gymnasium_comes_whole_after_ours() -> None:
    """Its own environments are there, and nothing of ours stays in the way of later imports."""
    program = "import rlprune, gymnasium, sys; print('CartPole-v1' in gymnasium.registry, gymnasium.envs.__name__); "
    assert said(program + "print([f for f in sys.meta_path if type(f).__module__.startswith('rlprune')])") == [
        "True", "gymnasium.envs", "[]",
    ]  # fmt: skip


@pytest.mark.parametrize("module", ["", "rlprune:", "rlprune.envs:"])
def test_it_can_be_made(module: str) -> None:
    env = gym.make(f"{module}{ENVIRONMENT_ID}", spec=make_spec(), score=score)
    assert type(env.unwrapped) is ChannelPruningEnv
    assert env.unwrapped.spec is not None
    assert env.unwrapped.spec.id == ENVIRONMENT_ID == "rlprune/ChannelPruning-v0"
