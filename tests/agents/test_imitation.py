"""A policy that is taught a plan walks to it."""

import itertools

import numpy as np
import pytest
from toys import macs, make_spec, score

from rlprune import registry
from rlprune.agents.imitation import imitate, policy_mean
from rlprune.agents.rollout import greedy, rollout
from rlprune.envs.episode import retrace
from rlprune.envs.vector import WalkVecEnv


def specs() -> list:
    """The dynamic features tell the two budgets apart."""
    return [make_spec("macs=0.5", (6.0, 6.0, 6.0)), make_spec("macs=0.3", (4.0, 4.0, 4.0))]


@pytest.mark.parametrize("name", registry.names("agent"))
def test_learns_one_plan_a_budget(name: str) -> None:
    both = specs()
    plans = [np.array([[8, 4, 6]]), np.array([[3, 6, 3]])]
    plans = [spec.projector.fill(plan) for spec, plan in zip(both, plans, strict=True)]
    agent = registry.make("agent", name).make(WalkVecEnv(both, [score, score], 4), 3, seed=0)
    for _ in range(10):
        imitate(agent, list(zip(both, plans, strict=True)))
    for spec, plan in zip(both, plans, strict=True):
        assert rollout(greedy(agent), spec, 1)[1][0].tolist() == plan[0].tolist()


@pytest.mark.parametrize("name", registry.names("agent"))
def test_the_mean_is_what_the_agent_does(name: str) -> None:
    agent = registry.make("agent", name).make(WalkVecEnv(specs(), [score, score], 4), 3, seed=0)
    seen = np.random.default_rng(0).normal(0, 1, (20, agent.observation_space.shape[0])).astype(np.float32)  # type: ignore[index]
    expected, _ = agent.predict(seen, deterministic=True)
    mean = policy_mean(agent, agent.policy.obs_to_tensor(seen)[0])  # type: ignore[arg-type]
    np.testing.assert_allclose(mean.detach().numpy(), expected, atol=1e-6)


def test_every_plan_within_reach_is_retraced() -> None:
    """All plans that fill the budget, walked again by their own actions."""
    spec = make_spec("macs=0.5", (5.0, 5.0, 5.0))
    every = np.array([plan for plan in itertools.product(range(2, 9), repeat=3) if macs(*plan) <= 76])
    plans = np.unique(spec.projector.fill(every), axis=0)
    seen, done = retrace(spec, plans)
    assert seen.shape[:2] == done.shape == (3, len(plans))
    inside = (np.abs(done) < 1).all(axis=0)
    assert inside.sum() > 10
    steps = iter(done)
    _, ends = rollout(lambda observations: next(steps), spec, len(plans))
    np.testing.assert_array_equal(ends[inside], plans[inside])
