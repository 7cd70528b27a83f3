"""Environments that are images of a batch, against a forward pass and rewards by hand."""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from gated import Made, gate, images, network
from stable_baselines3.common.vec_env import VecMonitor
from torch import Tensor
from torch.nn import functional as F

from rlprune.agents.gating.agents import make_runtime_agent, make_static_agent, require_recurrent, static_plan, transfer
from rlprune.envs.gating import BONUS, Rewards, RuntimeVecEnv, StaticVecEnv, observation_size, penalty, stored_counts
from rlprune.errors import UserError
from rlprune.gating.controller import Walk, to_keep
from rlprune.gating.gate import KeepRatios
from rlprune.gating.policy import CONTEXT, KeepPolicy

LABELS = torch.tensor([0, 1, 2, 3])
BUDGET = 0.5


def batch() -> tuple[Tensor, Tensor, np.ndarray]:
    return images(4), LABELS, np.full(4, BUDGET)


@pytest.fixture
def made() -> Made:
    return gate(network("vgg11"), 0.5)


@pytest.fixture
def env(made: Made) -> Iterator[RuntimeVecEnv]:
    made.runtime.budget = BUDGET
    env = RuntimeVecEnv(made.gated, made.runtime.layout, made.cost, batch, 4, made.runtime.static)
    yield env
    env.close()


def test_the_price_of_too_much() -> None:
    assert penalty(np.array([-0.2, 0.0])).tolist() == [0, 0]
    assert penalty(np.array([0.03])) == pytest.approx(1.2 * (np.e - 1))
    assert penalty(np.array([0.12])) == pytest.approx(1.2 * (np.exp(3) - 1 + np.exp(3)))


def test_losses_count_relative_to_what_is_usual() -> None:
    rewards = Rewards()
    found = rewards(np.array([1.0, 3.0]), np.array([-0.1, 0.03]), BONUS)
    np.testing.assert_allclose(found, [-0.49, -1.5 - 1.2 * 1.71828], rtol=1e-4)
    np.testing.assert_allclose(rewards(np.array([5.0, 7.0]), np.zeros(2), 0), [-5 / 4, -7 / 4])


def test_an_episode_is_a_forward_pass(env: RuntimeVecEnv, made: Made) -> None:
    rng = np.random.default_rng(0)
    seen, rewards, dones = env.reset(), np.zeros(4), np.zeros(4, dtype=bool)
    walk, actions = Walk(made.runtime.layout, np.full(4, BUDGET)), []
    for step in range(8):
        assert seen.shape == (4, observation_size(made.runtime.layout))
        np.testing.assert_allclose(seen[:, -CONTEXT:], walk.context(), rtol=1e-6)
        one_hot = seen[:, -CONTEXT - 8 : -CONTEXT]
        assert one_hot.argmax(1).tolist() == [step] * 4
        assert not dones.any()
        actions.append(rng.uniform(-1, 1, 4))
        walk.take(step, actions[-1])
        seen, rewards, dones, infos = env.step(actions[-1][:, None])
    assert dones.all()
    assert all("terminal_observation" in info for info in infos)
    again = Walk(made.runtime.layout, np.full(4, BUDGET))
    env.close()
    with torch.no_grad():
        logits = made.gated(
            images(4), lambda n, *_: KeepRatios(again.take(n, actions[n]), np.full(4, float(made.runtime.static[n])))
        )
    losses = F.cross_entropy(logits, LABELS, reduction="none").double().numpy()
    over = made.cost.ratios(made.gated.counts())[:, 0] - BUDGET
    expected = -losses / losses.mean() - penalty(over) + BONUS * np.maximum(-over, 0)
    np.testing.assert_allclose(rewards, expected, rtol=1e-5)
    assert env.told[-1]["macs_ratio"] == pytest.approx(over.mean() + BUDGET)


@pytest.mark.parametrize("recurrent", [False, True])
def test_a_new_agent_keeps_the_even_plan_and_moves_into_the_policy(
    env: RuntimeVecEnv, made: Made, recurrent: bool
) -> None:
    agent: Any = make_runtime_agent(env, made.runtime.layout, 0, recurrent=recurrent)
    assert np.abs(agent.predict(env.reset(), deterministic=True)[0]).max() < 0.1
    agent.learn(2 * 8 * 4)
    policy = KeepPolicy(made.runtime.layout.inputs, made.runtime.layout.channels, recurrent)
    transfer(agent, policy)
    seen, states, memory = env.reset(), None, None
    for number in range(3):
        expected, states = agent.predict(seen, states, np.full(4, number == 0), deterministic=True)
        inputs, channels = (made.runtime.layout.inputs, made.runtime.layout.channels)
        pooled = seen[:, : inputs[number]]
        importance = seen[:, max(inputs) : max(inputs) + channels[number]]
        found, memory = policy.act(number, pooled, importance, seen[:, -CONTEXT:], memory)
        np.testing.assert_allclose(np.clip(found, -1, 1), expected[:, 0], rtol=1e-3, atol=1e-5)
        seen = env.step(expected)[0]


def test_the_static_agent_is_charged_for_what_runs_and_what_is_stored(made: Made) -> None:
    made.runtime.budget = BUDGET
    env = StaticVecEnv(made.gated, made.runtime.layout, made.cost, batch, 4, made.runtime)
    env.reset()
    rng, actions = np.random.default_rng(0), []
    for _ in range(8):
        actions.append(rng.uniform(-1, 1, 4))
        _, rewards, dones, _ = env.step(actions[-1][:, None])
    assert dones.all()
    even = float(made.runtime.layout.even(BUDGET))
    keeps = to_keep(np.full((8, 4), even), np.array(actions))
    with torch.no_grad():
        logits = made.gated(images(4), lambda n, *x: KeepRatios(made.runtime(n, *x).runtime, keeps[n]))
    losses = F.cross_entropy(logits, LABELS, reduction="none").double().numpy()
    over = made.cost.ratios(made.gated.counts())[:, 0] - BUDGET
    stored, allowed = (
        made.cost.ratios(stored_counts(made.gated, some))[:, 1] for some in (keeps, np.full((8, 1), even))
    )
    np.testing.assert_allclose(rewards, -losses / losses.mean() - penalty(over) - penalty(stored - allowed), rtol=1e-5)
    agent = make_static_agent(env, 8, 0)
    np.testing.assert_allclose(static_plan(agent, env).numpy(), even, rtol=0.05)


def test_stored_counts_by_hand(made: Made) -> None:
    counts = stored_counts(made.gated, np.full((8, 1), 0.5))
    for wire in made.gated.wires:
        channels = wire.stop - wire.start
        assert counts[0, wire.group] == channels - (channels - -(-channels // 2)) // 2


def test_wrappers_find_what_they_ask_for(env: RuntimeVecEnv) -> None:
    assert VecMonitor(env).reset().shape[0] == 4
    assert env.get_attr("render_mode") == [None] * 4
    with pytest.raises(AttributeError, match="they share what they act on"):
        env.set_attr("gated", None)
    with pytest.raises(AttributeError, match="they are arrays"):
        env.env_method("reset")


def test_without_its_library_there_is_no_recurrent_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    with pytest.raises(UserError, match=r"pip install 'rlprune\[recurrent\]'"):
        require_recurrent()


def test_steps_come_after_a_start_and_with_an_action_an_image(env: RuntimeVecEnv, made: Made) -> None:
    shared = (made.gated, made.runtime.layout, made.cost, batch, 4)
    for each in (env, StaticVecEnv(*shared, made.runtime)):
        with pytest.raises(ValueError, match=r"^no episode is under way"):
            each.step(np.zeros((4, 1)))
        each.reset()
        for actions in (np.zeros((3, 1)), np.full((4, 1), np.nan)):
            with pytest.raises(ValueError, match=r"^the action"):
                each.step(actions)
