"""Networks cut by us against the same networks cut by torch-pruning."""

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hard_networks import Net
from oracles import cut_by_torch_pruning
from torch import Tensor, nn

from rlprune.artifacts.pruned import load, save_pruned
from rlprune.errors import UserError
from rlprune.evaluation.sliced import SliceRunner
from rlprune.graph.structure import Graph
from rlprune.graph.surgery import Slicer, prune
from rlprune.models.registry import build_model
from rlprune.models.trust import remember
from rlprune.plans.plan import PruningPlan, make_plan
from rlprune.tracing.build import build_graph
from rlprune.utils.modules import named_tensors

USER_FILE = """
from torch import nn

def net(num_classes, width):
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 5, 3), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(5, num_classes))
"""


NORM_FILE = """
from torch import nn

def net(num_classes):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.{norm}(8), nn.Conv2d(8, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(5, num_classes))
"""


def random_mask(graph: Graph, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    halves = [rng.permutation(group.channels) < rng.integers(1, group.channels + 1) for group in graph.groups]
    return np.concatenate(halves)


@pytest.mark.parametrize("seed", [0, 1])
def test_cut_networks_are_those_of_torch_pruning(network: nn.Module, seed: int) -> None:
    graph = build_graph(network, torch.zeros(1, 3, 32, 32))
    kept = random_mask(graph, seed)
    before = copy.deepcopy(network.state_dict())
    ours, theirs = prune(network, graph, kept), cut_by_torch_pruning(network, graph, kept)
    images = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-5 * theirs(images).abs().max().item())
    assert {name: value.shape for name, value in ours.state_dict().items()} == {
        name: value.shape for name, value in theirs.state_dict().items()
    }
    # Layers say what they hold; torch-pruning leaves batch norms without weights alone.
    assert [repr(layer) for layer in ours.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))] == [
        repr(layer) for layer in theirs.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))
    ]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_slices_keep_the_memory_format(network: nn.Module, layout: torch.memory_format) -> None:
    graph = build_graph(network, torch.zeros(1, 3, 32, 32))
    kept = random_mask(graph)
    expected = prune(network, graph, kept).state_dict()
    network.to(memory_format=layout)
    slices = Slicer(graph, named_tensors(network)).slices(kept)
    assert any(value.shape != network.state_dict()[name].shape and value.dim() == 4 for name, value in slices.items())
    for name, value in slices.items():
        assert value.dim() != 4 or value.is_contiguous(memory_format=layout), name
        assert torch.equal(value, expected[name])


def test_cut_networks_learn_alone(network: nn.Module) -> None:
    graph = build_graph(network, torch.zeros(1, 3, 32, 32))
    before = copy.deepcopy(network.state_dict())
    smaller = prune(network, graph, random_mask(graph)).train()
    optimiser = torch.optim.SGD(smaller.parameters(), lr=1e-3)
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8) % 4
    weights = [parameter.clone() for parameter in smaller.parameters()]
    loss = nn.functional.cross_entropy(smaller(images), labels)
    loss.backward()
    optimiser.step()
    assert all(parameter.grad is not None for parameter in smaller.parameters())
    assert any(not torch.equal(now, old) for now, old in zip(smaller.parameters(), weights, strict=True))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_what_is_frozen_stays_frozen(tmp_path: Path) -> None:
    """In the pruned copy, after training, saved and loaded; what can be trained in one file's network may be frozen."""
    network = build_model("resnet20", classes=4, image_size=32, args={"width": 0.25})
    frozen = {name for name, _ in network.named_parameters() if name.startswith(("conv1", "bn1", "layer1"))}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in frozen)
    assert 0 < len(frozen) < len(list(network.parameters()))
    graph = build_graph(network, torch.zeros(1, 3, 32, 32))
    kept = random_mask(graph)
    smaller = prune(network, graph, kept)
    before = copy.deepcopy(dict(smaller.named_parameters()))
    optimiser = torch.optim.SGD(smaller.parameters(), lr=0.1, weight_decay=0.1)
    smaller.train()(torch.randn(4, 3, 32, 32)).square().sum().backward()
    optimiser.step()
    still = {name for name, now in smaller.named_parameters() if torch.equal(now, before[name])}
    assert still == frozen
    description = {"model": "resnet20", "classes": 4, "image_size": 32, "args": {"width": 0.25}}
    save_pruned(smaller, make_plan(graph, kept, description), tmp_path)
    loaded = load(tmp_path)
    for module in (smaller, loaded, prune(loaded, *everything(loaded))):
        assert {name for name, parameter in module.named_parameters() if not parameter.requires_grad} == frozen


def everything(module: nn.Module) -> tuple[Graph, np.ndarray]:
    """A network's structure, and a mask that keeps all of it."""
    graph = build_graph(module, torch.zeros(1, 3, 32, 32))
    return graph, np.ones(graph.sizes.sum(), dtype=bool)


def test_numbers_that_are_no_floats_are_not_trained() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
    network.register_parameter("steps", nn.Parameter(torch.tensor(3), requires_grad=False))
    assert not prune(network, *everything(network)).get_parameter("steps").requires_grad


class OwnNorm(nn.Module):
    """A layer norm of one's own, as of ConvNeXt's authors."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.normalized_shape = (channels,)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.layer_norm(x.movedim(1, -1), self.normalized_shape, self.weight, self.bias)
        return y.movedim(-1, 1)


@pytest.mark.parametrize("norm", [nn.InstanceNorm2d, OwnNorm], ids=["instance", "own"])
def test_layers_know_how_many_channels_are_left(norm: type[nn.Module], tmp_path: Path) -> None:
    """Also those without numbers of their own; a stale one is told of by a warning, which is an error here."""
    (tmp_path / "mine.py").write_text(NORM_FILE.format(norm="InstanceNorm2d"))
    network = nn.Sequential(nn.Conv2d(3, 8, 3), norm(8), nn.Conv2d(8, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.append(nn.Linear(5, 4))
    graph = build_graph(network, torch.zeros(1, 3, 32, 32))
    assert [group.channels for group in graph.groups] == [8, 5]
    kept = np.arange(13) % 3 < 2
    smaller, images = prune(network, graph, kept), torch.randn(2, 3, 32, 32)
    smaller(images)
    assert getattr(smaller[1], "num_features", 6) == getattr(smaller[1], "normalized_shape", (6,))[0] == 6
    runner = SliceRunner(network, graph, images)
    torch.testing.assert_close(runner.logits(kept, images), smaller.eval()(images))
    if norm is nn.InstanceNorm2d:
        name = f"{tmp_path / 'mine.py'}:net"
        remember(name)
        plan = make_plan(graph, kept, {"model": name, "classes": 4, "image_size": 32, "args": {}})
        save_pruned(smaller, plan, tmp_path / "pruned")
        loaded = load(tmp_path / "pruned")
        assert loaded[1].num_features == 6  # type: ignore[index]
        assert torch.equal(loaded(images), smaller(images))


def test_embeddings_know_their_size() -> None:
    # What is looked up meets a layer's outputs, so that it can be cut with them.
    network = Net(
        lambda net, x: net.last((net.one(net.embed(x)) + net.embed(x)).relu()),
        embed=nn.Embedding(20, 8),
        one=nn.Linear(8, 8),
        last=nn.Linear(8, 5),
    )
    graph = build_graph(network, torch.zeros(1, 4, dtype=torch.long))
    smaller = prune(network, graph, np.arange(8) < 6)
    assert (smaller.embed.num_embeddings, smaller.embed.embedding_dim) == tuple(smaller.embed.weight.shape) == (20, 6)


def test_keeping_everything_changes_nothing(network: nn.Module) -> None:
    graph = build_graph(network, torch.zeros(1, 3, 32, 32))
    images = torch.randn(2, 3, 32, 32)
    same = prune(network, graph, np.ones(graph.sizes.sum(), dtype=bool))
    assert torch.equal(same(images), network(images))
    assert not any(a is b for a, b in zip(same.parameters(), network.parameters(), strict=True))


def test_buffers_outside_the_state_dict_are_copied() -> None:
    class Counts(nn.Module):
        seen: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.one, self.last = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)
            self.register_buffer("seen", torch.zeros(1), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            self.seen += 1
            return self.last(self.one(x).mean((2, 3)))

    net = Counts()
    graph = build_graph(net, torch.zeros(1, 3, 4, 4))
    smaller, before = prune(net, graph, random_mask(graph)), net.seen.clone()
    smaller(torch.zeros(1, 3, 4, 4))
    assert torch.equal(net.seen, before)


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[str, dict[str, object]], tuple[Path, nn.Module]]:
    """A pruned network in a folder."""

    def write(model: str, args: dict[str, object]) -> tuple[Path, nn.Module]:
        description = {"model": model, "classes": 4, "image_size": 32, "args": args}
        module = build_model(model, classes=4, image_size=32, args=args).eval()
        graph = build_graph(module, torch.zeros(1, 3, 32, 32))
        kept = random_mask(graph)
        smaller = prune(module, graph, kept)
        save_pruned(smaller, make_plan(graph, kept, description), tmp_path / "run" / "pruned")
        return tmp_path / "run", smaller

    return write


@pytest.mark.parametrize("model", ["mobilenetv2", "file"])
def test_loading_in_a_new_process(
    folder: Callable[[str, dict[str, object]], tuple[Path, nn.Module]], tmp_path: Path, model: str
) -> None:
    (tmp_path / "mine.py").write_text(USER_FILE)
    name = f"{tmp_path / 'mine.py'}:net" if model == "file" else model
    run, module = folder(name, {"width": 6 if model == "file" else 0.25})
    images = torch.randn(2, 3, 32, 32)
    torch.save(images, tmp_path / "images.pt")
    program = (
        "import sys, torch, rlprune; torch.set_num_threads(1); net = rlprune.load(sys.argv[1], model=sys.argv[4]); "
        "assert not net.training and all(p.requires_grad for p in net.parameters()); "
        "torch.save(net(torch.load(sys.argv[2])).detach(), sys.argv[3])"
    )
    files = [run, tmp_path / "images.pt", tmp_path / "outputs.pt"]
    subprocess.run([sys.executable, "-c", program, *map(str, files), name], check=True, cwd=Path(__file__).parents[2])
    assert torch.equal(torch.load(tmp_path / "outputs.pt"), module(images))
    # The inner folder alone will do as well.
    assert torch.equal(load(run / "pruned", model=name)(images), module(images))


def test_no_pruned_network(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no pruned network: expected plan.json and model.safetensors"):
        load(tmp_path)


def test_files_that_do_not_belong_together(
    folder: Callable[[str, dict[str, object]], tuple[Path, nn.Module]],
) -> None:
    run, _ = folder("resnet20", {"width": 0.25})
    plan = run / "pruned" / "plan.json"
    good = json.loads(plan.read_text())

    def refused(said: str, **changes: object) -> None:
        plan.write_text(json.dumps(good | changes))
        with pytest.raises(UserError, match=re.escape(said)):
            load(run)

    refused("does not say which network it prunes", network={})
    refused("unknown model 'resnet21'", network=good["network"] | {"model": "resnet21"})
    refused("does not fit vgg11: ", network=good["network"] | {"model": "vgg11"})
    name = next(name for name, group in good["groups"].items() if len(group["kept"]) > 1)
    fewer = {"channels": good["groups"][name]["channels"], "kept": good["groups"][name]["kept"][1:]}
    refused(
        f"does not fit its own plan: '{name}' keeps {len(fewer['kept'])} channels",
        groups=good["groups"] | {name: fewer},
    )
    refused("there is no layer 'other'", groups=good["groups"] | {"other": fewer})


def test_a_plan_is_no_network(tmp_path: Path) -> None:
    PruningPlan({"a": (0,)}, {"a": 2}).save(tmp_path / "plan.json")
    with pytest.raises(UserError, match="holds no pruned network"):
        load(tmp_path)
