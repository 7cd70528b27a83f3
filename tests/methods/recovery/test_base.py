"""Repairs by name: which there are, in which order, and what each leaves of a network that it cannot repair."""

from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlprune import registry
from rlprune.config.options import USUAL_REPAIR
from rlprune.errors import UserError
from rlprune.evaluation.sliced import recalibrate
from rlprune.graph.structure import Graph
from rlprune.graph.surgery import prune
from rlprune.methods.recovery import base
from rlprune.methods.recovery.base import Cut, Recovery, RepairContext, Repairs
from rlprune.plans.counts import top_mask
from rlprune.tracing.build import build_graph

ALL = ("bias", "bn", "merge", "reconstruct")
IMAGES = torch.randn(9, 3, 32, 32, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def graph(network: nn.Module) -> Graph:
    return build_graph(network, torch.zeros(1, 3, 32, 32))


def half(graph: Graph) -> np.ndarray:
    rng = np.random.default_rng(1)
    return top_mask(graph, (graph.sizes + 1) // 2, rng.random(int(graph.sizes.sum())))


def test_what_there_is() -> None:
    assert registry.names("recovery") == ALL
    assert base.USUAL == USUAL_REPAIR == "bn"


def test_alone_recalibration_is_what_it_always_was(network: nn.Module, graph: Graph) -> None:
    given, expected = Repairs("bn", network, graph, IMAGES).cut(half(graph)), prune(network, graph, half(graph))
    recalibrate(expected, IMAGES)
    assert same(given, expected)
    assert not given.training


@pytest.mark.parametrize("repair", ALL)
def test_a_network_of_every_coupling_is_repaired_and_trains_on(network: nn.Module, graph: Graph, repair: str) -> None:
    """With the layers that it had, tensors of its own and numbers that are some."""
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    repairs = Repairs(repair, network, graph, IMAGES)
    one, again = repairs.cut(half(graph)), repairs.cut(half(graph))
    plain = prune(network, graph, half(graph))
    assert same(one, again)
    assert {name: tensor.shape for name, tensor in one.state_dict().items()} == {
        name: tensor.shape for name, tensor in plain.state_dict().items()
    }
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    mine = {tensor.data_ptr() for tensor in network.state_dict().values()}
    assert not mine & {tensor.data_ptr() for tensor in one.state_dict().values()}
    assert torch.isfinite(one(IMAGES)).all()
    one.train()(IMAGES).square().mean().backward()
    assert all(parameter.grad is not None for parameter in one.parameters())


def test_nothing_is_cut_and_nothing_changes(network: nn.Module, graph: Graph) -> None:
    kept = np.ones(int(graph.sizes.sum()), dtype=bool)
    assert same(Repairs("merge,bias,reconstruct", network, graph, IMAGES).cut(kept), network)


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(mine, theirs) for mine, theirs in pairs)


def test_the_order_is_that_of_the_methods(network: nn.Module, graph: Graph) -> None:
    one, other = (
        Repairs(text, network, graph, IMAGES) for text in ("bn,reconstruct,bias,merge", "merge,bias,reconstruct,bn")
    )
    assert [type(method).__name__ for method in one.methods] == ["Merge", "Reconstruct", "Bias", "BatchNorm"]
    assert one.methods == other.methods


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.one, self.two = nn.BatchNorm2d(6), nn.Conv2d(6, 5, 3, padding=1), nn.Conv2d(5, 6, 1)

    def forward(self, images: Tensor) -> Tensor:
        return images + self.two(self.one(self.norm(images)).relu())


@pytest.mark.parametrize("repair", ALL)
def test_blocks_that_are_taken_out(repair: str) -> None:
    """The batch norm that reads what the first layer gives goes with its block."""
    parts = [nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 6, 1, bias=False), Block(), Block()]
    network = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)).eval()
    graph = build_graph(network, torch.zeros(1, 3, 32, 32))
    assert [block.name for block in graph.blocks] == ["3", "4"]
    kept = half(graph)
    for group, mine in zip(graph.groups, graph.split(kept), strict=True):
        if group.name == "3.one":
            mine[:] = False
    smaller = Repairs(repair, network, graph, IMAGES).cut(kept)
    assert isinstance(smaller[3], nn.Identity)
    assert torch.isfinite(smaller(IMAGES)).all()


@dataclass(frozen=True)
class Doubling(Recovery):
    """Doubles the last layer."""

    needs: ClassVar[tuple[str, ...]] = ()
    rank: ClassVar[int] = 9
    times: float = 2.0

    def apply(self, module: nn.Module, cut: Cut, context: RepairContext) -> nn.Module:
        return nn.Sequential(module, nn.Linear(4, 4, bias=False))


def test_one_of_another_package(network: nn.Module, graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    offered: Any = EntryPoint("doubling", f"{__name__}:Doubling", "rlprune.recoveries")
    monkeypatch.setattr(EntryPoint, "load", lambda self: Doubling)
    monkeypatch.setattr(registry, "_elsewhere", lambda kind: {"doubling": offered} if kind == "recovery" else {})
    repaired = Repairs("doubling:times=3,bn", network, graph, IMAGES)
    assert [getattr(method, "times", None) for method in repaired.methods] == [None, 3.0]


@pytest.mark.parametrize("text", ["merg", "merge:treshold=0.3", "bn,reconstruct:rows=many"])
def test_names_and_settings_that_there_are_not(network: nn.Module, graph: Graph, text: str) -> None:
    with pytest.raises(UserError, match=r"did you mean 'merge'|did you mean 'threshold'|expected int"):
        Repairs(text, network, graph, IMAGES)
