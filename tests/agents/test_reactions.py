"""How much an action changes, against policies that can be worked out by hand."""

import numpy as np
import pytest
import torch
from toys import make_spec, score

from rlprune import registry
from rlprune.agents.diagnostics import SHIFTS, mean_changes, reactions
from rlprune.envs.vector import WalkVecEnv


def test_a_linear_policy_reacts_by_weight_and_spread() -> None:
    seen = np.random.default_rng(0).normal(size=(9, 4))
    seen[:, 3] = 7.0
    weights = np.array([0.01, -0.05, 0.0, 0.9])
    pairs = np.abs(seen[:, None] - seen[None]).sum(axis=(0, 1)) / (9 * 8)
    np.testing.assert_allclose(
        mean_changes(lambda some: (some - [0, 0, 0, 7]) @ weights, seen), np.abs(weights) * pairs
    )


def test_what_is_beyond_the_bounds_of_the_action_does_not_count() -> None:
    seen = np.array([[0.0], [10.0]])
    # Clipped, the actions are 0 and 1.
    np.testing.assert_allclose(mean_changes(lambda some: some[:, 0], seen), [1.0])
    np.testing.assert_allclose(mean_changes(lambda some: 5 + some[:, 0], seen), [0.0])


def test_a_walk_of_one_step_changes_nothing() -> None:
    assert mean_changes(lambda some: some[:, 0], np.ones((1, 3))).tolist() == [0, 0, 0]


def test_a_long_walk_is_shifted_by_a_few_distances_that_tell_the_same() -> None:
    calls = 0

    def choose(some: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        return 0.1 * some[:, 0]

    seen = np.random.default_rng(1).uniform(-1, 1, (300, 2))
    found = mean_changes(choose, seen)
    assert calls == 1 + 2 * SHIFTS
    # Two uniform numbers within 2 of each other differ by 2 / 3 on average.
    assert found[0] == pytest.approx(0.1 * 2 / 3, rel=0.05)
    assert found[1] == 0


@pytest.mark.parametrize("name", registry.names("agent"))
def test_every_agent_has_reactions(name: str) -> None:
    specs = [make_spec("macs=0.5"), make_spec("macs=0.3")]
    agent = registry.make("agent", name).make(WalkVecEnv(specs, [score] * 2, 4), 3, seed=0)
    with torch.no_grad():
        for parameter in agent.policy.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    table = reactions(agent, specs)
    assert sorted(table["observation"]) == sorted(specs[0].features.names)
    assert table["change"].is_monotonic_decreasing
    assert (table["change"] >= 0).all()
    assert table["change"].iloc[0] > 0
    # A constant, and the budgets on parameters, which no spec has, move nothing.
    still = dict(zip(table["observation"], table["change"], strict=True))
    assert still["nothing"] == still["dynamic_10"] == 0
    assert reactions(agent, specs).equals(table)
