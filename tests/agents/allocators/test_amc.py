"""AMC's walk by hand on the toy network, and its agent against closed forms."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from rivalry import cheap, make_problem, make_workload
from toys import macs, make_spec

from rlprune.agents.allocators import amc
from rlprune.cost.budget import parse_budget
from rlprune.cost.exact import build_cost
from rlprune.cost.projection import BudgetProjector
from rlprune.envs.amc import FEATURES, AmcEnv, describe_layers, shares_of_macs
from rlprune.models.registry import build_model
from rlprune.tracing.build import build_graph


def make_env(budget: str = "macs=0.5", reward: float = -0.25) -> AmcEnv:
    """MACs = a + ab + bc + 2c of at most 8 channels each, 152 in all."""
    workload = make_workload()
    layers, flops = describe_layers(workload.module, workload.graph), shares_of_macs(workload.graph, 152)
    return AmcEnv(make_spec(budget).projector, layers, flops, lambda counts: reward)


def walk(env: AmcEnv, *actions: float) -> list[int]:
    env.reset()
    for action in actions:
        env.step(np.array([action]))
    return env.counts.tolist()


@pytest.mark.parametrize(
    ("budget", "actions", "plan"),
    [
        # Nobody may fall below 20 %, two of eight, so that 76 MACs allow 8 + 8 b + 2 b + 4 for b, then 8 + 48 + 8 c.
        ("0.5", (1, 1, 1), [8, 6, 2]),
        # 4 + 4 b + 2 b + 4 lets all of b stay; then 4 + 32 + 10 c.
        ("0.5", (0.5, 1, 1), [4, 8, 4]),
        ("0.5", (0.5, 0.5, 1), [4, 4, 8]),
        # The plan may stay below the budget: nothing is filled up.
        ("0.5", (0, 0, 0), [2, 2, 2]),
        ("0.5", (0.44, 0.43, 0.32), [4, 3, 3]),
        ("1", (1, 1, 1), [8, 8, 8]),
        # 7.6 MACs are too few for 20 % everywhere, which costs 14: single channels it is, and 2 a + 1 + 2 for a.
        ("0.05", (1, 1, 1), [2, 1, 1]),
        ("0.05", (0, 1, 1), [1, 2, 1]),
    ],
)
def test_the_wall(budget: str, actions: tuple[float, ...], plan: list[int]) -> None:
    assert walk(make_env(budget), *actions) == plan


def test_no_action_leads_above_the_budget() -> None:
    env, rng = make_env("0.3"), np.random.default_rng(0)
    for _ in range(200):
        assert macs(*walk(env, *rng.random(3))) <= 0.3 * 152


def test_what_is_seen() -> None:
    """Layers of 8, 64 and 64 MACs and 1, 8 and 8 inputs; all else is equal, and scaled to 0."""
    env = make_env()
    first, _ = env.reset()
    second, _, _, _, info = env.step(np.array([0.5]))
    third, reward, finished, _, _ = env.step(np.array([1.0]))
    assert (reward, finished, info["ratio"]) == (0, False, 0.5)
    expected = {
        "index": (0, 0.5, 1),
        "n": (0, 0, 0),
        "c": (0, 1, 1),
        "h": (0, 0, 0),
        "w": (0, 0, 0),
        "stride": (0, 0, 0),
        "kernel": (0, 0, 0),
        "flops": (0, 1, 1),
        # Of 8 + 64 + 64 + 16 MACs the halved first layer takes 4 + 32; the second one is whole.
        "reduced": (0, 36 / 152, 36 / 152),
        "rest": (128 / 152, 64 / 152, 0),
        "last_action": (1, 0.5, 1),
    }
    assert tuple(expected) == FEATURES
    found = np.array([first, second, third]).T
    assert found == pytest.approx(np.array(list(expected.values())))
    *_, reward, finished, _, _ = env.step(np.array([1.0]))
    assert (reward, finished) == (-0.25, True)


def test_layers_of_a_real_network() -> None:
    module = build_model("resnet20", classes=10, image_size=32, args={"width": 0.5}).eval()
    graph = build_graph(module, torch.zeros(1, 3, 32, 32))
    names = [group.name for group in graph.groups]
    table = dict(zip(names, describe_layers(module, graph), strict=True))
    assert table["conv1"].tolist()[1:7] == [0, 0, 1, 1, 0, 0]  # 8 channels from 3, 32 x 32 positions
    strided = table["layer2.0.conv1"]
    assert strided[5] == 1
    # 16 of 8 to 32 channels, 8 of 3 to 32 inputs, sides of 16 between 8 and 32.
    assert strided[[1, 2, 3]] == pytest.approx([8 / 24, 5 / 29, 8 / 24])
    assert sum(shares_of_macs(graph, build_cost(graph).dense[0])) == pytest.approx(1, abs=0.001)


def test_it_is_a_gymnasium_environment() -> None:
    check_env(make_env(), skip_render_check=True)


@pytest.mark.parametrize(("mean", "sigma"), [(0.5, 0.5), (0.05, 0.5), (0.98, 0.1), (0.3, 1e-5)])
def test_exploration_is_a_truncated_normal_distribution(mean: float, sigma: float) -> None:
    """Its mean is m + s (f(a) - f(b)) / (F(b) - F(a)), with the normal density f and distribution F."""
    rng = np.random.default_rng(0)
    draws = np.array([amc.explore(mean, sigma, rng) for _ in range(2000)])
    assert draws.min() >= 0
    assert draws.max() <= 1
    low, high = -mean / sigma, (1 - mean) / sigma
    density = [math.exp(-(edge**2) / 2) / math.sqrt(2 * math.pi) for edge in (low, high)]
    mass = [(1 + math.erf(edge / math.sqrt(2))) / 2 for edge in (low, high)]
    expected = mean + sigma * (density[0] - density[1]) / (mass[1] - mass[0])
    assert draws.mean() == pytest.approx(expected, abs=4 * sigma / math.sqrt(len(draws)))


def test_every_step_gets_the_reward_of_the_end() -> None:
    env = make_env()
    agent = amc.make_amc(env, seed=0)
    steps, reward = amc._walk(agent, env, 0.5, np.random.default_rng(0))
    amc.remember(agent, steps, reward)
    buffer = agent.replay_buffer
    assert buffer is not None
    assert buffer.buffer_size == 2000
    assert buffer.rewards[:3].ravel().tolist() == [-0.25] * 3
    assert buffer.dones[:3].ravel().tolist() == [0, 0, 1]
    # From [0, 1] to the [-1, 1] of the actor.
    ratios = np.array(env.counts) / 8
    assert buffer.actions[:3].ravel() == pytest.approx(2 * ratios - 1)
    assert buffer.observations[1:3, 0].tolist() == buffer.next_observations[:2, 0].tolist()


def test_the_baseline_follows_the_rewards() -> None:
    agent = amc.make_amc(make_env(), seed=0)
    buffer, nothing = agent.replay_buffer, np.zeros((1, 11), dtype=np.float32)
    assert isinstance(buffer, amc.Centred)
    for rewards, baseline in (([-1.0] * 4, -1.0), ([-0.5] * 4, -0.75), ([-0.5] * 4, -0.625)):
        buffer.reset()
        for reward in rewards:
            buffer.add(nothing, nothing, np.zeros((1, 1)), np.array([reward]), np.array([False]), [{}])
        batch = buffer.sample(8)
        assert buffer.baseline == baseline
        assert batch.rewards.ravel().tolist() == [rewards[0] - baseline] * 8


def test_the_agent_is_that_of_the_paper() -> None:
    env = make_env()
    agent = amc.make_amc(env, seed=0)
    steps, reward = amc._walk(agent, env, 0.5, np.random.default_rng(0))
    amc.remember(agent, steps, reward)
    agent.train(1, amc.BATCH)
    for network, rate in ((agent.actor, 1e-4), (agent.critic, 1e-3)):
        linear = [layer for layer in network.modules() if isinstance(layer, torch.nn.Linear)]
        assert [layer.out_features for layer in linear] == [300, 300, 1]
        assert [settings["lr"] for settings in network.optimizer.param_groups] == [rate]
    assert (agent.gamma, agent.tau) == (1, 0.01)


def test_it_learns_what_pays() -> None:
    """The reward is the second group's ratio, so that the first one has to make room."""
    projector = BudgetProjector(make_workload().cost, parse_budget("0.5"))
    env = AmcEnv(projector, make_env().layers, make_env().rest, lambda counts: counts[1] / 8 - 1)
    agent, rng, rewards = amc.make_amc(env, seed=0), np.random.default_rng(0), []
    for episode in range(80):
        steps, reward = amc._walk(agent, env, 0.5 * 0.95 ** max(0, episode - 30), rng)
        amc.remember(agent, steps, reward)
        rewards.append(reward)
        if episode >= 30:
            agent.train(5, amc.BATCH)
    assert np.mean(rewards[-15:]) > np.mean(rewards[:30]) + 0.2


def test_one_evaluation_an_episode_and_a_collapse_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = make_problem("amc", cheap, 12)
    walks: list[None] = []
    real = amc._walk

    def counted(*args: Any) -> Any:
        walks.append(None)
        return real(*args)

    monkeypatch.setattr(amc, "_walk", counted)
    amc.AMC().allocate(problem)
    assert len(walks) == 12 >= len(problem.seen)
    saturated = amc.make_amc(make_env(), seed=0)
    with torch.no_grad():
        saturated.actor.mu[-2].bias.fill_(50.0)
    monkeypatch.setattr(amc, "make_amc", lambda env, seed: saturated)
    assert (
        amc.AMC().allocate(make_problem("amc", cheap, 2)).remark
        == "the policy collapsed: every action is at the upper bound"
    )


def test_what_does_not_belong_to_an_episode_is_told() -> None:
    env = make_env()
    with pytest.raises(ValueError, match=r"^no episode is under way"):
        env.step(np.ones(1))
    walk(env, 1, 1, 1)
    with pytest.raises(ValueError, match=r"^no episode is under way"):
        env.step(np.ones(1))
    env.reset()
    for action in ([np.nan], [1.0, 1.0], 0.5):
        with pytest.raises(ValueError, match=r"^the action"):
            env.step(np.array(action))
    with pytest.raises(ValueError, match=r"^reward returned nan"):
        walk(make_env(reward=np.nan), 1, 1, 1)
