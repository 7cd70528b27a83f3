"""PPO without its gradient: the same walks, and a policy that only imitation changes."""

import numpy as np
from rivalry import cheap, make_problem
from toys import make_spec, score

from rlprune.agents.algorithms.ppo import PPO
from rlprune.agents.allocators.ppo_frozen import PPOFrozen
from rlprune.envs.vector import WalkVecEnv


def weights_after(steps: int, method: PPO) -> list[np.ndarray]:
    agent = method.make(WalkVecEnv([make_spec()], [score], 4), 3, seed=0)
    if steps:
        agent.learn(steps)
    return [tensor.numpy() for tensor in agent.policy.state_dict().values()]


def test_nothing_is_learnt() -> None:
    for before, after in zip(weights_after(0, PPOFrozen()), weights_after(60, PPOFrozen()), strict=True):
        np.testing.assert_array_equal(before, after)
    changed = zip(weights_after(0, PPO()), weights_after(60, PPO()), strict=True)
    assert any((before != after).any() for before, after in changed)


def test_it_starts_as_ppo_does() -> None:
    for ours, theirs in zip(weights_after(0, PPOFrozen()), weights_after(0, PPO()), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_it_searches() -> None:
    problem = make_problem("ppo-frozen", cheap, 30)
    found = PPOFrozen().allocate(problem)
    assert len(problem.seen) <= 30
    assert problem.projector.fits(found.counts)
    assert cheap(found.counts) < cheap(problem.projector.project(np.full((1, 3), 8.0))[0])
