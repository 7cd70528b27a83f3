"""Scripted and quantised parts stay whole, and only what they touch stays whole with them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hard_networks import Net, conv
from torch import Tensor, nn

from rlprune.cost.exact import build_cost
from rlprune.errors import UserError
from rlprune.graph.surgery import prune
from rlprune.tracing.build import build_graph

IMAGE = torch.zeros(1, 3, 8, 8)
# Both are on their way out of torch, and people have them.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{what}")
    for what in ("torch.jit.script", "torch.quantize_per_tensor", "torch.ao.quantization", "TypedStorage")
]


def around(part: nn.Module) -> Net:
    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.part(net.one(x).relu())
        return net.last(net.three(net.two(y).relu()).relu().mean((2, 3)))

    torch.manual_seed(0)
    return Net(forward, one=conv(3, 8), part=part, two=conv(12, 10), three=conv(10, 6), last=nn.Linear(6, 5)).eval()


def inside() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(conv(8, 9), nn.ReLU(), conv(9, 12))


def test_a_scripted_part() -> None:
    net = around(torch.jit.script(inside()))
    graph = build_graph(net, IMAGE)
    assert {group.name: group.channels for group in graph.groups} == {"two": 10, "three": 6}
    assert graph.refused["part"] == "it is a scripted module, which cannot be looked into"
    assert graph.refused["one"] == "it enters 'part', which is a scripted module"
    # It costs what it costs.
    macs = 64 * 9 * (3 * 8 + 8 * 9 + 9 * 12 + 12 * 10 + 10 * 6) + 6 * 5
    assert build_cost(graph).dense.tolist() == [macs, sum(parameter.numel() for parameter in net.parameters())]
    kept = np.arange(16) % 2 == 0
    smaller = prune(net, graph, kept).eval()
    plain = around(inside())
    plain.load_state_dict(net.state_dict())
    expected = prune(plain, build_graph(plain, IMAGE), np.append(np.ones(8 + 9 + 12, dtype=bool), kept)).eval()
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(smaller(images), expected(images))
    # A copy of its own.
    with torch.no_grad():
        getattr(smaller.part, "0").weight.zero_()
    torch.testing.assert_close(net(images), plain(images))


def test_a_part_runs_as_in_use() -> None:
    """Its norm has no statistics to take of a single position."""
    part = torch.jit.script(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(8), nn.Conv2d(8, 12, 1)))
    net = around(part).train()
    assert {group.name for group in build_graph(net, IMAGE).groups} == {"two", "three"}
    assert net.part.training


def test_a_network_that_is_scripted_as_a_whole() -> None:
    with pytest.raises(UserError, match="the network is a scripted module, which cannot be looked into: give the"):
        build_graph(torch.jit.script(inside()), torch.zeros(1, 8, 8, 8))


@pytest.mark.skipif("onednn" not in torch.backends.quantized.supported_engines, reason="no quantised operations")
def test_a_quantised_part() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        return net.last(net.part(net.two(net.one(x).relu()).relu().mean((2, 3))))

    quantised = torch.ao.nn.quantized.dynamic.Linear(6, 7)
    net = Net(forward, one=conv(3, 8), two=conv(8, 6), part=quantised, last=nn.Linear(7, 5)).eval()
    graph = build_graph(net, IMAGE)
    assert [group.name for group in graph.groups] == ["one"]
    assert graph.refused["part"] == "it is a quantised module, which cannot be looked into"
    assert prune(net, graph, np.arange(8) < 3)(IMAGE).shape == (1, 5)


def test_a_quantised_part_is_not_stored(tmp_path: Path) -> None:
    from rlprune.artifacts.pruned import save_pruned
    from rlprune.plans.plan import make_plan

    net = around(torch.jit.script(inside()))
    net.part = torch.ao.nn.quantized.dynamic.Linear(6, 7)
    graph = build_graph(around(inside()), IMAGE)
    plan = make_plan(graph, np.ones(int(graph.sizes.sum()), dtype=bool), {"model": "x"})
    with pytest.raises(UserError, match="'part' is a quantised module, whose weights are no tensors"):
        save_pruned(net, plan, tmp_path / "pruned")
    assert not (tmp_path / "pruned").exists()
