"""Costs against PyTorch's own counter on networks that are cut for real, and against a formula."""

import numpy as np
import pytest
import torch
from residual import EXAMPLE, attention, basic, convnext, inverted
from residual import network as residual
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rlprune.cost.exact import build_cost, group_costs
from rlprune.graph.surgery import prune
from rlprune.plans.counts import top_mask
from rlprune.tracing.build import build_graph


def counted(module: nn.Module, size: int = 32) -> list[int]:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(1, 3, size, size))
    return [counter.get_total_flops() // 2, sum(parameter.numel() for parameter in module.parameters())]


def test_costs_of_cut_networks(network: nn.Module) -> None:
    graph = build_graph(network, torch.zeros(1, 3, 32, 32))
    cost = build_cost(graph)
    assert cost.dense.tolist() == cost(graph.sizes).tolist() == counted(network)
    rng = np.random.default_rng(0)
    plans = np.stack([rng.integers(1, graph.sizes + 1) for _ in range(5)])
    expected = [counted(prune(network, graph, top_mask(graph, plan, rng.random(graph.sizes.sum())))) for plan in plans]
    assert cost(plans).tolist() == expected
    assert np.allclose(cost.ratios(plans), np.array(expected) / counted(network), rtol=1e-15)


def test_the_weights_of_groups_and_the_others_are_all(network: nn.Module) -> None:
    graph = build_graph(network, torch.zeros(1, 3, 32, 32))
    made = {layer for group in graph.groups for layer in group.producers}
    counts = np.random.default_rng(0).integers(1, graph.sizes + 1)
    smaller = prune(network, graph, top_mask(graph, counts, np.arange(graph.sizes.sum())))
    whole = [value.numel() for name, value in smaller.named_parameters() if name.rpartition(".")[0] not in made]
    assert round(group_costs(graph, counts)[:, 1].sum()) + sum(whole) == counted(smaller)[1]


@pytest.mark.parametrize("seed", range(4))
def test_costs_of_networks_without_blocks(seed: int) -> None:
    """Norms, biases, depthwise layers on the stream and products of activations go with their block."""
    net = residual(basic(), inverted(), convnext(), attention(), basic())
    graph = build_graph(net, EXAMPLE)
    cost, rng = build_cost(graph), np.random.default_rng(seed)
    plans = np.stack([rng.integers(1, graph.sizes + 1) for _ in range(6)])
    for plan in plans[1:]:
        for block in graph.blocks:
            plan[list(block.groups)] *= rng.random() < 0.5
    smaller = [prune(net, graph, top_mask(graph, plan, rng.random(graph.sizes.sum()))) for plan in plans]
    expected = [counted(module, 8) for module in smaller]
    assert cost(plans).tolist() == expected
    assert [cost(plan).tolist() for plan in plans] == expected
    for plan, module in zip(plans, smaller, strict=True):
        made = {layer for group in graph.groups for layer in group.producers}
        whole = [value.numel() for name, value in module.named_parameters() if not _made(name, made)]
        assert round(group_costs(graph, plan)[:, 1].sum()) + sum(whole) == counted(module, 8)[1]


def _made(name: str, layers: set[str]) -> bool:
    return name in layers or name.rpartition(".")[0] in layers


def test_a_block_alone_saves_all_of_it() -> None:
    net = residual(inverted(), basic())
    graph = build_graph(net, EXAMPLE)
    cost, counts = build_cost(graph), graph.sizes.copy()
    counts[list(graph.blocks[0].groups)] = 0
    saved = cost.saved_alone(counts)
    gone = counted(net, 8)[1] - counted(prune(net, graph, top_mask(graph, counts, np.ones(graph.sizes.sum()))), 8)[1]
    assert saved[list(graph.blocks[0].groups), 1].tolist() == [gone / cost.dense[1]] * 2


def test_formula() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, stride=2, bias=False),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 5),
    )  # fmt: skip
    graph = build_graph(net, torch.zeros(1, 3, 9, 9))
    cost = build_cost(graph)
    for a in range(1, 9):
        for b in range(1, 7):
            macs = 81 * 27 * a + 16 * 9 * a * b + 4 * b * 5
            params = (27 * a + a) + 2 * a + 9 * a * b + (4 * b * 5 + 5)
            assert cost(np.array([a, b])).tolist() == [macs, params]
            parts = [[81 * 27 * a, 27 * a + a + 2 * a], [16 * 9 * a * b, 9 * a * b]]
            assert np.allclose(group_costs(graph, np.array([a, b])), parts, rtol=1e-12)


def test_uncalled_layers_have_parameters_only() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    net.spare = nn.Conv2d(8, 8, 1)
    net.forward = lambda x: net[3](net[2](net[1](net[0](x))))  # type: ignore[method-assign]
    assert build_cost(build_graph(net, torch.zeros(1, 3, 4, 4)))(np.array([5])).tolist() == [
        16 * 3 * 5 + 5 * 2,
        3 * 5 + 5 + 5 * 2 + 2 + 72,
    ]


def test_layers_that_are_called_twice_count_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.two(self.two(self.one(x)).relu()).mean((2, 3)))

    cost = build_cost(build_graph(Twice(), torch.zeros(1, 3, 4, 4)))
    assert cost(np.array([3])).tolist() == [16 * 3 * 3 + 2 * 16 * 3 * 3 + 3 * 2, 12 + 12 + 3 * 2 + 2]


def test_what_stands_behind_the_counts_costs_nothing() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    cost = build_cost(build_graph(net, torch.zeros(1, 3, 8, 8)))
    assert cost(np.array([5, 3, 2, 1])).tolist() == cost(np.array([5, 3])).tolist()
    assert cost.ratios(np.array([[5, 3, 2, 1]] * 2)).shape == (2, 2)
