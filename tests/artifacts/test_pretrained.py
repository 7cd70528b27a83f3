"""A pruned network, saved again after whatever was done to it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import rlprune
from rlprune.artifacts.pruned import plan_in, save_pruned
from rlprune.errors import UserError
from rlprune.graph.surgery import prune
from rlprune.models.registry import rebuild_model
from rlprune.models.trust import remember
from rlprune.plans.plan import PruningPlan, make_plan
from rlprune.tracing.build import build_graph

NETWORK = {"model": "resnet20", "args": {"width": 0.25}, "classes": 3, "image_size": 32}


@pytest.fixture
def pruned(tmp_path: Path) -> Path:
    """The folder of a network with every other channel gone."""
    dense = rebuild_model(NETWORK).eval()
    graph = build_graph(dense, torch.zeros(1, 3, 32, 32))
    stays = torch.arange(int(graph.sizes.sum())).numpy() % 2 == 0
    save_pruned(prune(dense, graph, stays), make_plan(graph, stays, NETWORK), tmp_path / "pruned")
    return tmp_path / "pruned"


def test_there_and_back(pruned: Path, tmp_path: Path) -> None:
    network = rlprune.from_pretrained(pruned)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.125)
    rlprune.save_pretrained(network, tmp_path / "again")
    files = {"config.json", "plan.json", "model.safetensors", "README.md"}
    assert {path.name for path in (tmp_path / "again").iterdir()} == files
    assert (tmp_path / "again" / "plan.json").read_bytes() == (pruned / "plan.json").read_bytes()
    before, after = (load_file(folder / "model.safetensors") for folder in (pruned, tmp_path / "again"))
    assert torch.equal(after["conv1.weight"], before["conv1.weight"] + 0.125)
    again = rlprune.from_pretrained(str(tmp_path / "again"))
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(images), network(images))
    assert plan_in(again) == plan_in(network)
    assert not again.training


def test_what_hubs_look_for(pruned: Path) -> None:
    config = json.loads((pruned / "config.json").read_text())
    assert config == {"library_name": "rlprune", "rlprune_version": rlprune.__version__, **NETWORK}


def test_a_card_that_is_there_stays(pruned: Path) -> None:
    (pruned / "README.md").write_text("mine")
    rlprune.save_pretrained(rlprune.load(pruned), pruned)
    assert (pruned / "README.md").read_text() == "mine"


def test_other_networks_need_their_plan(pruned: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"how this Linear was pruned: load it by rlprune\.load or give"):
        rlprune.save_pretrained(nn.Linear(3, 3), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    network = rlprune.load(pruned)
    plan = plan_in(network)
    bare = rebuild_model(NETWORK)
    bare.__dict__["_modules"] = network.__dict__["_modules"]
    rlprune.save_pretrained(bare, tmp_path / "new", plan)
    assert torch.equal(rlprune.load(tmp_path / "new").conv1.weight, network.conv1.weight)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no pruned network"):
        rlprune.from_pretrained(tmp_path)


def test_what_stands_around_a_network_is_not_saved(pruned: Path, tmp_path: Path) -> None:
    network = rlprune.load(pruned)
    rlprune.save_pretrained(nn.DataParallel(torch.compile(network)), tmp_path / "again")
    again = rlprune.load(tmp_path / "again")
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in again.state_dict().items())
    assert plan_in(again) == plan_in(network)


def test_a_wrapped_network_is_cut_and_saved(tmp_path: Path) -> None:
    """The groups have the names of the network itself, and what is saved is the slice by hand of its weights."""
    dense = rebuild_model(NETWORK).eval()
    around = nn.DataParallel(dense)
    graph = build_graph(around, torch.zeros(1, 3, 32, 32))
    assert [group.name for group in graph.groups] == [
        group.name for group in build_graph(dense, torch.zeros(1, 3, 32, 32)).groups
    ]
    stays = torch.arange(int(graph.sizes.sum())).numpy() % 2 == 0
    save_pruned(nn.DataParallel(prune(around, graph, stays)), make_plan(graph, stays, NETWORK), tmp_path / "pruned")
    cut = rlprune.load(tmp_path / "pruned").get_parameter("conv1.weight")
    assert torch.equal(cut, dense.get_parameter("conv1.weight")[::2])


def cut_again(network: nn.Module, keep: int = 2) -> tuple[nn.Module, PruningPlan]:
    """Cut a network once more: of every ``keep`` channels the last one stays."""
    graph = build_graph(network, torch.zeros(1, 3, 32, 32))
    stays = np.concatenate(
        [np.arange(group.channels) % keep == min(keep, group.channels) - 1 for group in graph.groups]
    )
    return prune(network, graph, stays), make_plan(graph, stays)


@pytest.mark.parametrize("model", ["resnet20", "mobilenetv2"])
def test_a_network_that_is_cut_again(tmp_path: Path, model: str) -> None:
    """Its plan is that of both cuts: the dense network cut by it at once has the very same weights."""
    network = NETWORK | {"model": model}
    dense = rebuild_model(network).eval()
    graph = build_graph(dense, torch.zeros(1, 3, 32, 32))
    stays = np.arange(int(graph.sizes.sum())) % 3 > 0
    save_pruned(prune(dense, graph, stays), make_plan(graph, stays, network), tmp_path / "first")
    smaller, second = cut_again(rlprune.load(tmp_path / "first"))
    rlprune.save_pretrained(smaller, tmp_path / "second", second)
    plan = PruningPlan.load(tmp_path / "second" / "plan.json")
    assert plan.channels == {group.name: group.channels for group in graph.groups}
    assert plan.network == network
    at_once = prune(dense, graph, plan.mask(graph)).state_dict()
    assert {name: tensor.shape for name, tensor in at_once.items()} == {
        name: tensor.shape for name, tensor in smaller.state_dict().items()
    }
    assert all(torch.equal(tensor, at_once[name]) for name, tensor in smaller.state_dict().items())
    # By hand, for the first convolution: of all channels but every third one, every other one.
    left = [channel for channel, stay in enumerate(graph.split(stays)[0]) if stay]
    assert list(plan.kept[graph.groups[0].name]) == left[1::2]
    again, third = cut_again(rlprune.load(tmp_path / "second"))
    rlprune.save_pretrained(again, tmp_path / "third", third)
    assert plan_in(rlprune.load(tmp_path / "third")) == plan.then(third)


def test_a_network_that_is_cut_again_in_another_process(pruned: Path, tmp_path: Path) -> None:
    smaller, second = cut_again(rlprune.load(pruned))
    save_pruned(smaller, second, tmp_path / "second")
    images = torch.randn(2, 3, 32, 32)
    save_file({"images": images, "logits": smaller.eval()(images).detach()}, tmp_path / "expected.safetensors")
    code = (
        "import sys, torch, rlprune; from safetensors.torch import load_file\n"
        "torch.set_num_threads(1); there = load_file(sys.argv[2])\n"
        "print(torch.equal(rlprune.load(sys.argv[1])(there['images']), there['logits']))"
    )
    arguments = [tmp_path / "second", tmp_path / "expected.safetensors"]
    ended = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert ended.stdout == "True\n"


def test_a_network_that_is_cut_again_needs_the_plan_of_that(pruned: Path, tmp_path: Path) -> None:
    network = rlprune.load(pruned)
    smaller, second = cut_again(network)
    with pytest.raises(UserError, match="was cut again since it was loaded, and the plan is that of the first cut"):
        rlprune.save_pretrained(smaller, tmp_path / "new")
    twice, third = cut_again(smaller)
    with pytest.raises(UserError, match=r"does not belong to what the first leaves: '.*' has 4 channels there.* 2$"):
        rlprune.save_pretrained(twice, tmp_path / "new", third)
    assert not (tmp_path / "new").exists()
    rlprune.save_pretrained(twice, tmp_path / "new", second.then(third))
    first = plan_in(network)
    assert first is not None
    assert plan_in(rlprune.load(tmp_path / "new")) == first.then(second).then(third)


def test_what_is_kept_beside_tensors_is_not_stored_and_told(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(KEEPING)
    network = NETWORK | {"model": f"{tmp_path / 'net.py'}:make", "args": {}}
    dense = rebuild_model(network).eval()
    graph = build_graph(dense, torch.zeros(1, 3, 32, 32))
    stays = np.arange(int(graph.sizes.sum())) % 2 == 0
    remember(network["model"])
    with pytest.warns(UserWarning, match="what '1' keeps beside its tensors .* is not stored: rlprune.load gives it"):
        save_pruned(prune(dense, graph, stays), make_plan(graph, stays, network), tmp_path / "pruned")
    assert torch.equal(rlprune.load(tmp_path / "pruned")[0].weight, dense[0].weight[::2])


def test_a_relative_name_is_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the results, and only where that very file has been named."""
    for repo in ("mine", "theirs"):
        (tmp_path / repo / "models").mkdir(parents=True)
        (tmp_path / repo / "models" / "net.py").write_text(KEEPING.replace('return {"seen": 3}', "return None"))
        monkeypatch.chdir(tmp_path / repo)
        network = NETWORK | {"model": "models/net.py:make", "args": {}}
        dense = rebuild_model(network).eval()
        graph = build_graph(dense, torch.zeros(1, 3, 32, 32))
        stays = np.arange(int(graph.sizes.sum())) % 2 == 0
        save_pruned(prune(dense, graph, stays), make_plan(graph, stays, network), tmp_path / repo / "runs" / "one")
        if repo == "mine":
            remember("models/net.py:make")
    monkeypatch.chdir(tmp_path)
    assert rlprune.load(tmp_path / "mine" / "runs" / "one")[0].out_channels == 2
    with pytest.raises(UserError, match="which you have never named"):
        rlprune.load(tmp_path / "theirs" / "runs" / "one")


KEEPING = """
from torch import nn


class Keeping(nn.ReLU):
    def get_extra_state(self):
        return {"seen": 3}

    def set_extra_state(self, state):
        pass


def make():
    return nn.Sequential(nn.Conv2d(3, 4, 3), Keeping(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
"""
