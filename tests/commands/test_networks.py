"""One policy that is trained over several networks at once."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from workshop import Interrupting, episodes, flags, kept_counts, same_weights

import rlprune
from rlprune.errors import UserError

EVALUATIONS = 52
"""10 for the curves of three groups, 16 for those of five, the rest for the agent."""
DEEPER = """
from torch import nn


def make(num_classes, width=8):
    sizes = [3, width, width, width, 2 * width, 2 * width]
    layers = [layer for a, b in zip(sizes, sizes[1:]) for layer in (nn.Conv2d(a, b, 3, padding=1), nn.ReLU())]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(sizes[-1], num_classes))
"""


@pytest.fixture(scope="module")
def joint(shop: Any) -> Any:
    (shop.root / "deeper.py").write_text(DEEPER)
    deeper, weights = f"{shop.root / 'deeper.py'}:make", shop.root / "deeper.safetensors"
    rlprune.train(**shop.settings | {"model": deeper}, epochs=1, out=weights)
    settings = shop.search | {"model": f"{shop.settings['model']},{deeper}", "evaluations": EVALUATIONS}
    settings |= {"checkpoint": f"{shop.checkpoint},{weights}", "finetune_epochs": 1, "budget": 0.3}
    folder = shop.root / "joint"
    result = rlprune.search(**settings, out=folder)
    return SimpleNamespace(folder=folder, settings=settings, result=result, names=["net.py_make", "deeper.py_make"])


def test_every_network_gets_a_run_of_its_own(joint: Any) -> None:
    result = joint.result
    assert [Path(one["run"]).name for one in result["networks"]] == joint.names
    assert result["evaluations"] == sum(one["evaluations"] for one in result["networks"]) == EVALUATIONS
    for one, name in zip(result["networks"], joint.names, strict=True):
        folder = joint.folder / name
        assert len(episodes(folder)) == one["evaluations"]
        assert one["search_loss"] <= one["base_loss"]
        assert 0.25 < one["macs_ratio"] <= 0.3
        assert one["finetuned_accuracy"] == rlprune.eval(source=folder, device="cpu")["test_accuracy"]
        assert json.loads((folder / "result.json").read_text())["plan"] == str(folder / "plan.json")
        assert (folder / "reactions.csv").is_file()
    page = (joint.folder / "report.html").read_text()
    assert "2 runs side by side" in page
    assert all(name in page for name in joint.names)
    assert not (joint.folder / "episodes.csv").exists()


def test_an_interrupted_search_ends_like_one_that_was_not(joint: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt, match="the same command continues"):
        rlprune.search(**joint.settings, out=folder, progress=Interrupting("searching", 40))
    rlprune.search(**joint.settings, out=folder)
    for name in joint.names:
        assert episodes(folder / name) == episodes(joint.folder / name)
        assert same_weights(folder / name, joint.folder / name)
    policies = [(place / "policy" / "policy.safetensors").read_bytes() for place in (folder, joint.folder)]
    assert policies[0] == policies[1]


@pytest.mark.parametrize("place", [0, 1])
def test_the_policy_walks_each_of_them(joint: Any, tmp_path: Path, place: int) -> None:
    model = joint.settings["model"].split(",")[place]
    result = rlprune.replay(source=joint.folder, model=model, device="cpu", out=tmp_path / "replayed", evaluations=1)
    assert result["home"]["kind"] == "the very network it was trained on"
    assert result["home"]["distance"] == 0
    # The policy was drawn to the best plan; what the search has measured costs nothing.
    assert result["search_loss"] <= joint.result["networks"][place]["base_loss"]
    assert len(kept_counts(tmp_path / "replayed").split()) == (3, 5)[place]


def test_it_walks_a_network_it_has_not_met(joint: Any, tmp_path: Path) -> None:
    """With the curves of the network that is more like it: the deeper one, half as wide."""
    model = joint.settings["model"].split(",")[1]
    result = rlprune.replay(
        source=joint.folder, model=model, model_args="width=4", train_epochs=1, device="cpu", out=tmp_path / "replayed"
    )
    assert result["home"]["kind"].startswith("another depth or width of")
    assert 0.2 < result["macs_ratio"] <= 0.3


def test_the_command_line(run: Callable[..., Any], joint: Any) -> None:
    ended = run("search", *flags(joint.settings | {"out": joint.folder}))
    assert ended.code == 0
    # Lines break where the terminal ends, and paths are as long as they are.
    assert " ".join(ended.out.split()).count("keep ≤ 30 % of the MACs") == 2
    assert f"rlprune replay {joint.folder} --model M" in " ".join(ended.out.split())
    ended = run("report", joint.folder)
    assert ended.code == 0


def test_a_range_over_several_networks(joint: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = rlprune.search(**joint.settings | {"budget": "0.2:0.5", "evaluations": 70}, out=folder)
    assert [len(one["plans"]) for one in result["networks"]] == [7, 7]
    assert all((folder / name / "front.csv").is_file() for name in joint.names)
    model = joint.settings["model"].split(",")[1]
    landed = rlprune.replay(source=folder, model=model, budget=0.35, device="cpu", out=tmp_path / "landed")
    assert 0.3 < landed["macs_ratio"] <= 0.35


def test_mistakes(joint: Any, tmp_path: Path) -> None:
    settings = joint.settings | {"out": tmp_path / "run"}
    with pytest.raises(UserError, match="the sensitivities of 8 groups and the first plans need 30 before"):
        rlprune.search(**settings | {"evaluations": 29})
    with pytest.raises(UserError, match="--checkpoint has 1 parts for 2 networks"):
        rlprune.search(**settings | {"checkpoint": "one.pt"})
    with pytest.raises(UserError, match="say which network to walk"):
        rlprune.replay(source=joint.folder, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
