"""What is remembered of walks is worth what plans are worth now."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from toys import foretell, loss, losses, macs, make_short_spec, make_spec

from rlprune import registry
from rlprune.agents.algorithms.sac import SAC
from rlprune.agents.search.archive import PlanArchive, Target
from rlprune.agents.search.engine import search
from rlprune.agents.search.memory import PlanReplayBuffer, forget, remember_plans, rescore
from rlprune.agents.search.multi_fidelity import Tuning
from rlprune.agents.search.rounds import imagined_episodes
from rlprune.envs.channel_pruning import ChannelPruningEnv

OFF_POLICY = ("sac", "td3", "ddpg")
BUDGET = 10
"""The place of the bound on the MACs among the toys' observations: a fact, three of the walk, two used, two left."""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlprune.agents.search.rounds.WALKS", 16)


class Believed:
    """What is believed can be changed by hand: a plan's loss is `factor` times its channels."""

    factor = 1.0

    def fit(self, budgets: Any) -> None:
        pass

    def mean(self, counts: np.ndarray, budget: int = 0) -> np.ndarray:
        return self.factor * counts.sum(axis=1)

    def predict(self, counts: np.ndarray, budget: int = 0) -> tuple[np.ndarray, np.ndarray]:
        return self.mean(counts), np.zeros(len(counts))


def learner_of(name: str, archives: list[PlanArchive]) -> Any:
    learner = registry.make("agent", name).make(imagined_episodes(archives), 3, 0)
    remember_plans(learner)
    return learner


def ends(archives: list[PlanArchive], learner: Any) -> list[tuple[float, int, int]]:
    """The reward at the end of every remembered walk, its network and the channels of its plan, found by walking the
    remembered actions in the single environment."""
    buffer, found = learner.replay_buffer, []
    for walk in range(learner.n_envs):
        place = walk * len(archives) // learner.n_envs
        env = ChannelPruningEnv(archives[place].spec, lambda counts: np.zeros(1))
        env.reset()
        for row in range(buffer.pos):
            _, _, finished, _, info = env.step(buffer.actions[row, walk])
            assert finished == bool(buffer.dones[row, walk])
            if finished:
                found.append((float(buffer.rewards[row, walk]), place, int(info["counts"].sum())))
                env.reset()
    return found


@pytest.mark.parametrize("name", OFF_POLICY)
def test_after_another_score_nothing_of_the_old_one_is_left(name: str) -> None:
    """Networks of three and of two groups; the reward is minus the loss, and 1 more: base plans have the loss 1."""
    models = [Believed(), Believed()]
    archives = [
        PlanArchive(spec, losses, model) for spec, model in zip((make_spec(), make_short_spec()), models, strict=True)
    ]
    learner = learner_of(name, archives)
    learner.learn(learner.n_envs * 7)
    before = ends(archives, learner)
    assert len(before) == learner.n_envs // 2 * (2 + 3)
    assert all(reward == pytest.approx(1 - channels) for reward, _, channels in before)
    for model, factor in zip(models, (100.0, -10.0), strict=True):
        model.factor = factor
    rescore(learner, archives)
    after = ends(archives, learner)
    assert [rest for _, *rest in after] == [rest for _, *rest in before]
    assert all(reward == pytest.approx(1 - (100, -10)[place] * channels) for reward, place, channels in after)
    # Between the ends nothing is rewarded.
    buffer = learner.replay_buffer
    assert not buffer.rewards[: buffer.pos][buffer.dones[: buffer.pos] == 0].any()
    updates = learner._n_updates
    learner.learn(learner.n_envs * 3, reset_num_timesteps=False)
    assert learner._n_updates == updates + 3 * learner.gradient_steps


def test_a_full_buffer_forgets_the_plans_that_it_writes_over() -> None:
    """Two walks of one step each, room for three steps; the fourth takes the place of the first."""
    spec = make_spec()
    learner: Any = registry.make("agent", "sac").make(imagined_episodes([PlanArchive(spec, losses, Believed())]), 3, 0)
    buffer = PlanReplayBuffer(6, learner.observation_space, learner.action_space, n_envs=2, n_steps=3, gamma=1.0)
    seen, action = np.zeros((2, *buffer.obs_shape)), np.zeros((2, 1))
    for step in range(4):
        infos: list[dict[str, Any]] = [{"counts": np.array([step, walk])} for walk in range(2)]
        buffer.add(seen, seen, action, np.zeros(2), np.ones(2), infos if step != 1 else [{}, {}])
    buffer.set_rewards(range(1, 2), lambda counts: 10.0 * counts[:, 0] + counts[:, 1])
    assert buffer.rewards.tolist() == [[0, 31], [0, 0], [0, 21]]
    buffer.set_rewards(range(2), lambda counts: -counts[:, 0])
    assert buffer.rewards.tolist() == [[-3, -3], [0, 0], [-2, -2]]
    buffer.reset()
    buffer.set_rewards(range(2), pytest.fail)
    assert buffer.size() == 0


@pytest.mark.parametrize("name", OFF_POLICY)
def test_what_was_forgotten_is_learnt_anew_after_a_whole_walk(name: str) -> None:
    archives = [PlanArchive(make_spec(), losses, Believed())]
    learner = learner_of(name, archives)
    learner.learn(learner.n_envs * 6)
    forget(learner, archives)
    assert learner.replay_buffer.size() == 0
    updates = learner._n_updates
    assert updates > 0
    learner.learn(learner.n_envs * 3, reset_num_timesteps=False)
    assert (learner.replay_buffer.size(), learner._n_updates) == (3, updates)
    learner.learn(learner.n_envs, reset_num_timesteps=False)
    assert learner._n_updates == updates + learner.gradient_steps


def test_an_agent_that_remembers_nothing_is_left_alone() -> None:
    archives = [PlanArchive(make_spec(), losses, Believed())]
    learner = learner_of("ppo", archives)
    before = set(vars(learner))
    rescore(learner, archives)
    forget(learner, archives)
    assert set(vars(learner)) == before


def test_a_buffer_that_does_not_know_plans_is_emptied() -> None:
    class Other(ReplayBuffer):
        pass

    archives = [PlanArchive(make_spec(), losses, Believed())]
    learner: Any = registry.make("agent", "sac").make(imagined_episodes(archives), 3, 0)
    learner.replay_buffer = Other(600, learner.observation_space, learner.action_space, n_envs=learner.n_envs)
    remember_plans(learner)
    assert type(learner.replay_buffer) is Other
    learner.learn(learner.n_envs * 2)
    rescore(learner, archives)
    assert learner.replay_buffer.size() == 0


def test_after_tunings_all_that_is_remembered_is_of_tunings() -> None:
    """One-shot losses a thousand times as large as those that tunings leave are what most walks had ended in."""
    spec = make_spec()
    base = spec.finish(spec.base[None])[0]

    def oneshot(plans: Sequence[np.ndarray]) -> list[float]:
        return [1000 * each for each in losses(plans)]

    target = Target([spec], oneshot, foretell, [(base,)])
    found = search([target], 30, SAC(gradient_steps=1), tuning=Tuning([losses], 16, [base]))
    learner: Any = found.agent
    assert isinstance(learner, OffPolicyAlgorithm)
    buffer = learner.replay_buffer
    rewards = buffer.rewards[: buffer.pos][buffer.dones[: buffer.pos] == 1]
    # Walks of both are remembered, and no plan is further from another than 8 in loss.
    assert len(rewards) > 16 * 2 * 4
    assert 0 < np.abs(rewards).max() < 20
    assert found.losses[0] < loss(base)


def test_after_a_correction_no_walk_under_the_old_cost_is_remembered() -> None:
    spec = make_spec()
    tight = make_spec(f"macs={60 / 152}").projector
    target = Target([spec], losses, foretell, correct=lambda counts: tight)
    found = search([target], 60, SAC(gradient_steps=1))
    learner: Any = found.agent
    buffer = learner.replay_buffer
    shown = buffer.observations[: buffer.pos, :, BUDGET]
    assert shown == pytest.approx(np.full(shown.shape, 60 / 152))
    assert buffer.pos > 0
    assert macs(*found.counts[0]) <= 60
