"""Networks that branch on their data: whatever way an image takes, the pruned network takes it, too."""

import copy
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hard_networks import Net, conv, weight
from torch import Tensor, nn

from rlprune.cost.exact import build_cost
from rlprune.graph.structure import WHOLE, Graph
from rlprune.graph.surgery import prune
from rlprune.tracing.build import ASIDE, build_graph
from rlprune.tracing.coupling import trace_coupling
from rlprune.tracing.exploration import UNREACHED, WAYS

IMAGE = torch.zeros(1, 3, 8, 8)


def ahead(net: Any, y: Tensor) -> Tensor:
    return net.last(net.three(net.two(y).relu()).relu().mean((2, 3)))


def exits(decide: Callable[[Any, Tensor], bool]) -> Net:
    """Some images leave early; the others go through two more layers."""

    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.one(x).relu()
        return net.early(y.mean((2, 3))) if decide(net, y) else ahead(net, y)

    torch.manual_seed(0)
    return Net(forward, one=conv(3, 8), early=nn.Linear(8, 5), two=conv(8, 6), three=conv(6, 7), last=nn.Linear(7, 5))


EXITS: dict[str, Callable[[Any, Tensor], Any]] = {
    "mask": lambda net, y: y.mean() > 0.5,
    "never by itself": lambda net, y: y.abs().amax() < -1,
    "confidence": lambda net, y: net.early(y.mean((2, 3))).softmax(1).amax() > 0.9,
    "item": lambda net, y: y.mean().item() > 0.5,
    "float": lambda net, y: float(y.amax()) > 3,
    "all": lambda net, y: (y > 0.1).all(),
    "not": lambda net, y: not (y.mean() <= 0.5),
    "equal": lambda net, y: torch.equal(y, y.abs() + 1),
}


def disconnected(module: nn.Module, graph: Graph, kept: np.ndarray) -> nn.Module:
    """The dense network in which nobody reads the channels that go."""
    silent = copy.deepcopy(module)
    stays = np.append(kept, True)
    assert WHOLE == -1
    parameters = dict(silent.named_parameters())
    for tensor in graph.tensors:
        for dim, axis in enumerate(tensor.axes):
            if axis is not None and graph.axes[axis].side == "in":
                read = torch.from_numpy(stays[graph.axes[axis].slots])
                parameters[tensor.name].data.mul_(read.view(-1, *[1] * (len(tensor.shape) - dim - 1)))
    return silent


@pytest.mark.parametrize("name", EXITS)
def test_both_ways_are_cut_alike(name: str) -> None:
    net = exits(EXITS[name]).eval()
    graph = build_graph(net, IMAGE)
    assert {group.name: set(group.consumers) for group in graph.groups} == {
        "one": {"early", "two"},
        "two": {"three"},
        "three": {"last"},
    }
    kept = np.arange(21) % 3 < 2
    smaller = prune(net, graph, kept).eval()
    for way in (True, False):
        net.run = smaller.run = lambda net, x, way=way: (  # type: ignore[misc]
            net.early(net.one(x).relu().mean((2, 3))) if way else ahead(net, net.one(x).relu())
        )
        images = torch.randn(3, 3, 8, 8)
        torch.testing.assert_close(smaller(images), disconnected(net, graph, kept)(images))


def test_the_heaviest_way_of_the_inputs_is_counted() -> None:
    """Of zeros all leave early; of real images one does not."""
    early, late = 64 * 3 * 8 * 9 + 8 * 5, 64 * 9 * (3 * 8 + 8 * 6 + 6 * 7) + 7 * 5
    net = exits(lambda net, y: y.mean() < 1e5)
    with torch.no_grad():
        net.one.bias.zero_()
    graph = build_graph(net, IMAGE)
    assert build_cost(graph).dense[0] == early
    assert [group.name for group in graph.groups] == ["one"]
    assert (graph.refused["two"], graph.refused["three"]) == (ASIDE, ASIDE)
    graph = build_graph(net, IMAGE, more=[torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 1e9)])
    assert build_cost(graph).dense[0] == late
    assert [group.name for group in graph.groups] == ["one", "two", "three"]


def test_a_way_behind_a_way() -> None:
    """An exit that is reached by not taking another one."""

    def forward(net: Any, x: Tensor) -> Tensor:
        y = x
        for layer, leave in zip(net.layers, net.exits, strict=True):
            y = layer(y).relu()
            if y.mean() >= 0:
                return leave(y.mean((2, 3)))
        return net.last(y.mean((2, 3)))

    sizes = [3, 4, 5, 6, 7]
    layers = nn.ModuleList(conv(one, other) for one, other in itertools.pairwise(sizes))
    net = Net(forward, layers=layers, exits=nn.ModuleList(nn.Linear(size, 2) for size in sizes[1:]))
    net.last = nn.Linear(7, 2)
    coupling = trace_coupling(net, IMAGE)
    for number, size in enumerate(sizes[1:]):
        assert np.array_equal(coupling.axes[f"exits.{number}", "in"], coupling.axes[f"layers.{number}", "out"])
        assert len(set(coupling.axes[f"layers.{number}", "out"]) - {0}) == size
    assert np.array_equal(coupling.axes["last", "in"], coupling.axes["layers.3", "out"])


def test_experts_that_no_image_reached_keep_what_they_may_read() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.one(x).relu().mean((2, 3))
        return net.last(net.two(net.experts[int(net.choose(y).argmax())](y)).relu())

    experts = nn.ModuleList(nn.Linear(8, 6) for _ in range(4))
    net = Net(forward, one=conv(3, 8), choose=nn.Linear(8, 4), experts=experts, two=nn.Linear(6, 7))
    net.last = nn.Linear(7, 3)
    graph = build_graph(net, IMAGE)
    assert [group.name for group in graph.groups] == ["two"]
    assert graph.refused["one"] == UNREACHED
    smaller = prune(net, graph, np.arange(7) < 3)
    for expert in range(4):
        with torch.no_grad():
            net.choose.bias.copy_(100.0 * (torch.arange(4) == expert))
            smaller.choose.bias.copy_(net.choose.bias)
        smaller(IMAGE)


def test_dead_code_of_a_network_without_branches_keeps_nothing_whole() -> None:
    net = Net(lambda net, x: net.last(net.one(x).relu().mean((2, 3))), one=conv(3, 8), last=nn.Linear(8, 2))
    net.spare = nn.Linear(8, 8)
    coupling = trace_coupling(net, IMAGE)
    assert not coupling.steered
    assert len(set(coupling.axes["one", "out"]) - {0}) == 8


def test_without_branches_two_inputs_are_enough() -> None:
    runs = []

    def forward(net: Any, x: Tensor) -> Tensor:
        runs.append(1)
        return net.last(net.one(x).relu().mean((2, 3)))

    net = Net(forward, one=conv(3, 8), last=nn.Linear(8, 2))
    trace_coupling(net, IMAGE)
    assert len(runs) == 1
    runs.clear()
    assert not trace_coupling(net, IMAGE, more=[torch.ones(1, 3, 8, 8)] * 5).steered
    assert len(runs) == 2


def test_numbers_that_do_not_come_of_the_data_decide_nothing() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.one(x).relu()
        return net.last((y if net.gain.mean() > 0 else -y).mean((2, 3)))

    net = Net(forward, one=conv(3, 8), last=nn.Linear(8, 2), gain=weight(4))
    assert not trace_coupling(net, IMAGE).steered


def test_other_operations_without_a_decision_that_is_seen() -> None:
    """What goes through NumPy leaves no trace, but other operations do."""

    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.one(x).relu()
        side = net.side(y) if x.numpy().any() else 0
        return net.last((net.two(y) + side).relu().mean((2, 3)))

    net = Net(forward, one=conv(3, 8), two=conv(8, 6), side=conv(8, 6), last=nn.Linear(6, 2))
    assert ("side", "out") not in trace_coupling(net, IMAGE).axes
    coupling = trace_coupling(net, IMAGE, more=[torch.ones(1, 3, 8, 8)])
    assert coupling.steered
    assert np.array_equal(coupling.axes["side", "out"], coupling.axes["two", "out"])


def test_ways_are_limited() -> None:
    """Of 2 ** 30 ways only some are gone, and a loop that a decision keeps going ends."""
    calls = []

    def forward(net: Any, x: Tensor) -> Tensor:
        calls.append(1)
        y = net.one(x).relu().mean((2, 3))
        for _ in range(30):
            y = y * 2 if y.mean() > 0 else y + 1
        return net.last(y)

    net = Net(forward, one=conv(3, 8), last=nn.Linear(8, 2))
    assert trace_coupling(net, IMAGE).steered
    assert len(calls) == 3 + WAYS
