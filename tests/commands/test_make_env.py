"""The environment of a real network: rewards as in a search, plans that cut."""

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from safetensors.torch import load_file
from torch.nn import functional as F
from workshop import NET, kept, macs

import rlprune
from rlprune.envs.episode import retrace
from rlprune.errors import UserError
from rlprune.graph.surgery import prune
from rlprune.plans.plan import PruningPlan
from rlprune.tracing.build import build_graph
from rlprune.utils.progress import Progress


@pytest.fixture(scope="module")
def env(shop: Any) -> gym.Env:
    return rlprune.make_env(**shop.search, render_mode="ansi")


def play(env: gym.Env, actions: np.ndarray) -> tuple[float, dict[str, Any]]:
    """One episode; its reward and what the last step tells."""
    env.reset()
    for action in actions:
        _, reward, finished, _, info = env.step(np.array([action], dtype=np.float32))
    assert finished
    return float(reward), info


def test_it_is_an_environment_for_anybody(env: gym.Env) -> None:
    check_env(env.unwrapped)
    play(env, np.zeros(3))
    assert str(env.render()).splitlines()[1].split()[:2] == ["stem", "16"]


def test_rewards_are_those_of_a_search(env: gym.Env, searched: Any) -> None:
    """The way to the plan that a search with the same settings has found: its loss there is its loss here."""
    counts = PruningPlan.load(searched.folder / "plan.json").counts()
    spec = env.unwrapped.walk.spec  # type: ignore[attr-defined]
    _, actions = retrace(spec, counts[None])
    reward, info = play(env, actions[:, 0])
    assert info["counts"].tolist() == counts.tolist()
    assert info["loss"] == searched.result["search_loss"]
    _, base = play(env, np.zeros(3))
    assert reward == pytest.approx(-spec.base_value - info["loss"])
    assert -spec.base_value == pytest.approx(base["loss"], abs=0.05)


def test_the_loss_is_that_of_a_network_that_is_really_cut(env: gym.Env, shop: Any) -> None:
    """Cut by the plan, its batch norm set by the calibration images, and the cross-entropy at the best temperature."""
    _, info = play(env, np.array([-0.7, 0.4, 0.2]))
    names: dict[str, Any] = {}
    exec(NET, names)
    net = names["make"](3)
    net.load_state_dict(load_file(shop.checkpoint))
    graph = build_graph(net.eval(), torch.zeros(1, 3, 16, 16))
    plan = env.unwrapped.plan()  # type: ignore[attr-defined]
    smaller = prune(net, graph, plan.mask(graph))
    calibration, (images, labels) = images_of(env)
    with torch.no_grad():
        for layer in (layer for layer in smaller.modules() if isinstance(layer, torch.nn.BatchNorm2d)):
            layer.reset_running_stats()
            layer.momentum = None
        smaller.train()(calibration)
        logits = smaller.eval()(images)
    losses = [float(F.cross_entropy(logits / heat, labels)) for heat in np.geomspace(0.05, 20, 4000)]
    assert info["loss"] == pytest.approx(min(losses), rel=2e-3)
    assert macs(smaller) <= 0.15 * macs(net)


def images_of(env: gym.Env) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """The calibration images, and the search images with their labels."""
    closure = dict(zip(env.unwrapped.plan_of.__code__.co_freevars, env.unwrapped.plan_of.__closure__, strict=True))  # type: ignore[attr-defined]
    workload = closure["workload"].cell_contents
    return workload.calibration()[0], workload.search()


def test_a_plan_is_saved_and_cut_by(env: gym.Env, shop: Any, tmp_path: Path) -> None:
    _, info = play(env, np.array([0.5, -0.5, 0.5]))
    env.unwrapped.plan().save(tmp_path / "plan.json")  # type: ignore[attr-defined]
    written = json.loads((tmp_path / "plan.json").read_text())
    assert written["provenance"]["budget"] == "0.15"
    found = rlprune.prune(
        plan=tmp_path / "plan.json", checkpoint=shop.checkpoint, device="cpu", out=tmp_path / "pruned"
    )
    assert found["macs_ratio"] <= 0.15
    assert [len(channels) for channels in kept(tmp_path / "pruned").values()] == info["counts"].tolist()


def test_the_seed_decides_all(env: gym.Env, shop: Any) -> None:
    again = rlprune.make_env(**shop.search)
    assert again.render_mode is None
    actions = np.array([0.3, -0.2, 0.1])
    assert play(again, actions)[0] == play(env, actions)[0]
    again.action_space.seed(0)
    other = rlprune.make_env(**shop.search | {"seed": 1})
    assert play(other, actions)[0] != play(env, actions)[0]
    firsts = [float(made.action_space.sample()[0]) for made in (rlprune.make_env(**shop.search), again, other)]
    assert firsts[0] == firsts[1] != firsts[2]


def test_balance_and_progress(shop: Any) -> None:
    class Told(Progress):
        stages: list[str] = []  # noqa: RUF012

        def stage(self, name: str, total: int | None = None, done: int = 0) -> None:
            self.stages.append(name)

    asked = shop.search | {"budget": None, "reward": "balance:macs=1"}
    made = rlprune.make_env(**asked, progress=Told())
    assert made.unwrapped.walk.spec.balance  # type: ignore[attr-defined]
    assert Told.stages[-1] == "measuring sensitivities"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"budget": None}, "--budget is missing"),
        ({"budgets": 0.3}, "unknown setting 'budgets': did you mean 'budget'"),
        ({"budget": "0.2:0.8"}, r"--budget 0\.2:0\.8 is a range: an environment has one budget, such as macs=0\.2"),
        ({"render_mode": "human"}, "render_mode is 'human': expected ansi, or none"),
        ({"mode": "runtime"}, "--mode runtime: an environment is that of one plan for all images"),
        ({"model": "vgg11,vgg16", "checkpoint": None}, "--model vgg11,vgg16 are several networks"),
    ],
)
def test_what_no_environment_can_be_made_of(shop: Any, more: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        rlprune.make_env(**shop.search | more)
