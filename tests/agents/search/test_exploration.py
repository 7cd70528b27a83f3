"""An agent looks around as far as in the beginning where plans are worth something else, and never stops."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from toys import foretell, losses, make_spec, score

import rlprune.agents.search.rounds as rounds
from rlprune import registry
from rlprune.agents.algorithms.ppo import PPO
from rlprune.agents.search.archive import Target
from rlprune.agents.search.engine import search
from rlprune.agents.search.exploration import FLOOR, explore, keep_exploring
from rlprune.agents.search.multi_fidelity import Tuning
from rlprune.envs.vector import WalkVecEnv


@pytest.fixture
def deviations(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Those of PPO's actions when rounds begin to imagine, of searches that this test makes."""
    found: list[float] = []
    learn: Any = registry.make("agent", "ppo").make(env(), 3, 0).learn

    def watched(self: Any, *given: Any, **named: Any) -> Any:
        found.append(math.exp(float(self.policy.log_std.detach())))
        return learn.__func__(self, *given, **named)

    monkeypatch.setattr(type(learn.__self__), "learn", watched)
    monkeypatch.setattr(rounds, "WALKS", 16)
    return found


def env() -> WalkVecEnv:
    return WalkVecEnv([make_spec()], [score], 4)


def learner_of(name: str) -> Any:
    return registry.make("agent", name).make(env(), 3, 0)


def spread(learner: BaseAlgorithm) -> float:
    """Deviation of an agent's actions over many draws where it sees nothing, before SAC squashes them."""
    seen = np.zeros((4000, learner.observation_space.shape[0]), np.float32)  # type: ignore[index]
    drawn = learner.predict(seen)[0]
    return float(np.std(np.arctanh(drawn) if isinstance(learner, SAC) else drawn))


def narrow(learner: Any) -> None:
    """Momentum and deviation after learning that noise does not pay."""
    learner.learn(60)
    with torch.no_grad():
        if hasattr(learner.policy, "log_std"):
            learner.policy.log_std.fill_(-4.0)
        else:
            learner.actor.log_std.weight.normal_()
            learner.actor.log_std.bias.fill_(-8.0)
            learner.log_ent_coef.fill_(-9.0)


@pytest.mark.parametrize("name", ["ppo", "sac"])
def test_begun_anew_it_looks_around_as_far_as_in_the_beginning(name: str) -> None:
    learner = learner_of(name)
    first = spread(learner)
    narrow(learner)
    assert spread(learner) < first / 4
    explore(learner)
    assert spread(learner) == pytest.approx(first, rel=0.1)


def test_sac_pays_for_entropy_what_it_paid_in_the_beginning() -> None:
    learner = learner_of("sac")
    narrow(learner)
    explore(learner)
    assert float(learner.log_ent_coef.detach().exp()) == pytest.approx(0.01)
    assert not learner.ent_coef_optimizer.state


def test_no_momentum_narrows_it_again() -> None:
    """Adam goes on for some ten steps in the old direction, as is seen where the gradient is zero."""
    for begin, still in ((explore, -1.8), (keep_exploring, math.log(FLOOR))):
        learner = learner_of("ppo")
        policy = learner.policy
        for _ in range(20):
            step(policy, torch.ones(1))
        with torch.no_grad():
            policy.log_std.fill_(-4.0)
        begin(learner)
        step(policy, torch.zeros(1))
        assert float(policy.log_std.detach()) == pytest.approx(still)


def step(policy: Any, gradient: torch.Tensor) -> None:
    policy.log_std.grad = gradient
    policy.optimizer.step()


def test_a_policy_that_looks_around_enough_is_left_alone() -> None:
    learner = learner_of("ppo")
    learner.learn(60)
    momentum = len(learner.policy.optimizer.state)
    before = float(learner.policy.log_std.detach())
    keep_exploring(learner)
    assert float(learner.policy.log_std.detach()) == before > math.log(FLOOR)
    assert len(learner.policy.optimizer.state) == momentum > 0


@pytest.mark.parametrize("name", ["td3", "ddpg"])
def test_constant_noise_stays(name: str) -> None:
    learner = learner_of(name)
    before = {key: value.clone() for key, value in learner.policy.state_dict().items()}
    explore(learner)
    keep_exploring(learner)
    assert all(torch.equal(value, before[key]) for key, value in learner.policy.state_dict().items())
    assert learner.action_noise is not None


def test_every_round_of_a_search_explores(deviations: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that narrows as fast as this one would be below this floor long before the end."""
    monkeypatch.setattr("rlprune.agents.search.exploration.FLOOR", 0.15)
    search([Target([make_spec()], losses, foretell)], 120, PPO(learning_rate=0.05))
    assert len(deviations) > 10
    assert min(deviations) == pytest.approx(0.15)


def test_tunings_are_explored_as_far_as_the_first_plans(deviations: list[float]) -> None:
    spec, before = make_spec(), list[int]()

    def tune(plans: Sequence[np.ndarray]) -> list[float]:
        before.append(len(deviations))
        return losses(plans)

    tuning = Tuning([tune], 24, [spec.base_plan()])
    search([Target([spec], losses, foretell)], 60, PPO(learning_rate=0.05), tuning=tuning)
    first = before[0]
    assert deviations[first - 1] != pytest.approx(math.exp(-1.8), rel=0.1)
    assert deviations[0] == deviations[first] == pytest.approx(math.exp(-1.8))


def test_a_corrected_cost_is_explored_as_far_as_the_first_plans(deviations: list[float]) -> None:
    spec, corrected = make_spec(), list[int]()
    tight = make_spec(f"macs={60 / 152}").projector

    def correct(counts: np.ndarray) -> Any:
        corrected.append(len(deviations))
        return tight

    search([Target([spec], losses, foretell, correct=correct)], 80, PPO(learning_rate=0.05))
    assert len(corrected) == 3
    assert [deviations[place] for place in corrected] == pytest.approx([math.exp(-1.8)] * 3)
    assert min(deviations) < 0.12
