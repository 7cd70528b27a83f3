"""A policy that has become a constant is noticed, one that has not is left in peace."""

import numpy as np
import pytest
import torch
from torch import nn
from toys import make_spec, score

from rlprune import registry
from rlprune.agents.diagnostics import at_one_bound, collapse, one_plan
from rlprune.envs.vector import WalkVecEnv


@pytest.mark.parametrize(
    ("actions", "told"),
    [
        ([1, 1, 1], "upper"),
        ([-1, -0.99, -1], "lower"),
        ([1, 1, 0.9], ""),
        ([1, -1, 1], ""),
        ([0, 0, 0], ""),
    ],
)
def test_all_actions_at_one_bound(actions: list[float], told: str) -> None:
    remark = at_one_bound(np.array(actions), -1, 1)
    assert remark == (f"the policy collapsed: every action is at the {told} bound" if told else "")


def test_one_plan() -> None:
    assert one_plan(np.array([[1, 2], [1, 2], [1, 2]])) == "the policy collapsed: all walks end in one plan"
    assert one_plan(np.array([[1, 2], [1, 2], [2, 1]])) == ""
    assert one_plan(np.array([[1, 2]])) == ""


@pytest.mark.parametrize("name", registry.names("agent"))
@pytest.mark.parametrize(("bias", "told"), [(0.0, None), (20.0, "upper"), (-20.0, "lower")])
def test_a_policy_pushed_to_its_bound(name: str, bias: float, told: str | None) -> None:
    spec = make_spec()
    agent = registry.make("agent", name).make(WalkVecEnv([spec], [score], 4), 3, seed=0)
    mean = agent.policy.action_net if name == "ppo" else agent.policy.actor.mu  # type: ignore[union-attr]
    last = [layer for layer in mean.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():
        last.bias.fill_(bias)
    remark = collapse(agent, spec)
    assert remark == (f"the policy collapsed: every action is at the {told} bound" if told else "")


def test_a_policy_without_noise_that_always_walks_the_same_way() -> None:
    spec = make_spec()
    agent = registry.make("agent", "ppo").make(WalkVecEnv([spec], [score], 4), 3, seed=0)
    with torch.no_grad():
        agent.policy.log_std.fill_(-20.0)  # type: ignore[union-attr]
    assert collapse(agent, spec) == "the policy collapsed: all walks end in one plan"
