"""A pruned network, saved again after whatever was done to it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import rlprune
from rlprune.artifacts.pruned import plan_in, save_pruned
from rlprune.errors import UserError
from rlprune.graph.surgery import prune
from rlprune.models.registry import rebuild_model
from rlprune.plans.plan import make_plan
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
