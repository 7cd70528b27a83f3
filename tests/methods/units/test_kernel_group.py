"""The unit on a small network: what is evaluated is what is cut, and the vote comes from files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rlprune import registry
from rlprune.errors import UserError
from rlprune.evaluation.sliced import SliceRunner, recalibrate
from rlprune.graph.structure import Graph
from rlprune.methods.units.base import Cutter
from rlprune.methods.units.base_grouping import FEATURES, equal_groups
from rlprune.methods.units.base_vote import vote
from rlprune.plans.plan import PruningPlan, make_plan
from rlprune.tracing.build import build_graph
from rlprune.tracing.selection import Choice


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 12, 3, stride=2)
        self.other = nn.BatchNorm2d(12)
        self.deep = nn.Conv2d(12, 12, 3, groups=12)
        self.last = nn.Conv2d(12, 7, 1)
        self.head = nn.Linear(7, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = torch.relu(self.norm(self.stem(images)))
        features = self.deep(torch.relu(self.other(self.inner(features))))
        return self.head(torch.relu(self.last(features)).mean((2, 3)))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


def images(number: int) -> Tensor:
    return torch.randn(number, 3, 12, 12, generator=torch.Generator().manual_seed(number))


def opened(net: nn.Module, text: str = "kernel-group:groups=4", choice: Choice | None = None) -> tuple[Graph, Cutter]:
    unit = registry.make("unit", text)
    graph = unit.structure(net, build_graph(net, images(1)), choice or Choice(), images(1))
    return graph, unit.cutter(net, graph)


def places(graph: Graph, counts: list[int]) -> np.ndarray:
    return np.concatenate([np.arange(size) < count for size, count in zip(graph.sizes.tolist(), counts, strict=True)])


def test_which_layers_can_be_cut(net: nn.Module) -> None:
    graph, _ = opened(net)
    assert {group.name: group.channels for group in graph.groups} == {"stem": 3, "inner": 8}
    assert graph.refused == {
        "deep": "it is a grouped convolution already",
        "last": "its 7 filters make no equal groups, 4 at most",
    }
    graph, cutter = opened(net, "kernel-group", Choice(exclude=("st*",)))
    assert graph.refused["stem"] == "it is excluded by 'st*'"
    assert [group.name for group in graph.groups] == ["inner", "last"]
    cuts = cutter.complete(make_plan(graph, places(graph, [2, 3]))).kernels
    # 12 filters make 6 groups, not 8; 7 filters make 7.
    assert cuts is not None
    assert [(len(cut.filters), cut.kept) for cut in cuts.values()] == [(6, 2), (7, 3)]
    with pytest.raises(UserError, match=r"no kernels of this network can be cut \(stem: it is not included"):
        opened(net, choice=Choice(include=("deep",)))
    with pytest.raises(UserError, match="unknown layer in --include 'inne': did you mean 'inner'"):
        opened(net, choice=Choice(include=("inne",)))


class Asking(Net):
    """Standardises the weights of one of its layers, as some networks do."""

    def forward(self, images: Tensor) -> Tensor:
        self.shift = self.inner.weight.mean()
        return super().forward(images)


def test_a_layer_whose_weights_the_network_asks_for_stays_whole() -> None:
    graph, _ = opened(Asking().eval())
    assert [group.name for group in graph.groups] == ["stem"]
    assert graph.refused["inner"] == "the network asks for more of it than its output, such as its weights"


@pytest.mark.parametrize("counts", [[2, 5], [1, 1], [3, 4], [3, 8]])
def test_evaluations_see_the_network_that_is_cut(net: nn.Module, counts: list[int]) -> None:
    graph, cutter = opened(net)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    kept = places(graph, counts)
    runner = SliceRunner(net, graph, images(20), slicer=cutter.slices())
    found = runner.logits(kept, images(9))
    smaller = cutter.cut(kept)
    recalibrate(smaller, images(20))
    with torch.no_grad():
        expected = smaller(images(9))
    assert torch.allclose(found, expected, atol=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    sizes = {name: part.weight.shape for name, part in smaller.named_modules() if isinstance(part, nn.Conv2d)}
    left = [sizes.get(f"{name}.conv", sizes.get(name)) for name in ("stem", "inner")]
    assert [shape[1] for shape in left if shape is not None] == counts


def test_without_cuts_it_is_the_dense_network(net: nn.Module) -> None:
    graph, cutter = opened(net)
    kept = np.ones(11, dtype=bool)
    dense = SliceRunner(net, build_graph(net, images(1)), images(20))
    every = np.ones(int(dense.graph.sizes.sum()), dtype=bool)
    found = SliceRunner(net, graph, images(20), slicer=cutter.slices()).logits(kept, images(9))
    assert torch.equal(found, dense.logits(every, images(9)))
    assert [type(part) for part in cutter.cut(kept).children()] == [type(part) for part in net.children()]
    assert cutter.complete(make_plan(graph, kept)).kernels == {}


def test_a_layer_keeps_a_slice(net: nn.Module) -> None:
    graph, cutter = opened(net)
    with pytest.raises(UserError, match="'stem' keeps no channel"):
        cutter.cut(places(graph, [0, 4]))


def test_only_numbers_of_slices_count(net: nn.Module) -> None:
    graph, cutter = opened(net)
    shuffled = np.concatenate([[False, True, True], np.arange(8) >= 3])
    plans = [cutter.complete(make_plan(graph, kept)) for kept in (places(graph, [2, 5]), shuffled)]
    assert plans[0] == plans[1]
    assert plans[0].kept == {"stem": (0, 1), "inner": (0, 1, 2, 3, 4)}


def rows(weight: Tensor) -> np.ndarray:
    return weight.flatten(1).double().numpy()


def test_the_grouping_is_chosen_by_snapshots(net: nn.Module, tmp_path: Path) -> None:
    weight = net.get_parameter("inner.weight").detach()
    candidates = [equal_groups(features(rows(weight), 4), 4) for features in FEATURES.values()]
    assert len(set(candidates)) == 3
    chosen = set()
    for seed in range(12):
        folder = tmp_path / str(seed)
        folder.mkdir()
        then = []
        for epoch in (9, 10, 100):
            state = net.state_dict()
            noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1000 * seed + epoch))
            state["inner.weight"] = weight * (1 + noise * torch.linspace(0, 2, 12)[:, None, None, None])
            then.append(rows(state["inner.weight"]))
            save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / f"e{epoch}.safetensors")
        graph, cutter = opened(net, f"kernel-group:groups=4,snapshots={folder}")
        cuts = cutter.complete(make_plan(graph, places(graph, [3, 4]))).kernels
        assert cuts is not None
        expected = vote(rows(weight), then, candidates)
        assert cuts["inner"].filters == candidates[expected]
        chosen.add(expected)
    assert len(chosen) > 1


def test_snapshots_that_cannot_be_used(net: nn.Module, tmp_path: Path) -> None:
    text = f"kernel-group:groups=4,snapshots={tmp_path}"
    with pytest.raises(UserError, match="holds no snapshots of a training: expected a folder of safetensors files"):
        opened(net, text)
    state = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    save_file(state | {"inner.weight": torch.zeros(3)}, tmp_path / "1.safetensors")
    with pytest.raises(UserError, match=r"is of another network: 'inner\.weight' is \(3,\) there and \(12, 8, 3, 3\)"):
        opened(net, text)
    save_file({"stem.weight": state["stem.weight"]}, tmp_path / "1.safetensors")
    with pytest.raises(UserError, match=r"'inner\.weight' is nothing there"):
        opened(net, text)
    save_file(state | {"inner.weight": state["inner.weight"] / 0}, tmp_path / "1.safetensors")
    with pytest.raises(UserError, match="is not finite"):
        opened(net, text)
    (tmp_path / "1.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot read"):
        opened(net, text)


def test_one_group_is_no_grouping() -> None:
    with pytest.raises(UserError, match="groups is 1, expected at least 2"):
        registry.make("unit", "kernel-group:groups=1")


def test_its_plan_is_written_and_read(net: nn.Module, tmp_path: Path) -> None:
    graph, cutter = opened(net)
    plan = cutter.complete(make_plan(graph, places(graph, [3, 5])))
    plan.save(tmp_path / "plan.json")
    assert PruningPlan.load(tmp_path / "plan.json") == plan
    assert plan.counts().tolist() == [3, 5]
    with pytest.raises(UserError, match="make no single one"):
        plan.then(plan)
