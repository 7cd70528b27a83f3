"""The latency model on layers whose time is a formula; no clock is asked."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from residual import attention, basic, convnext, inverted
from residual import network as residual
from torch import nn

from rlprune.cost.budget import parse_budget
from rlprune.cost.exact import build_cost
from rlprune.cost.projection import BudgetProjector
from rlprune.graph.surgery import prune
from rlprune.latency.layers import Layer, find_layers
from rlprune.latency.model import TimedCost, assemble, fit, layer_tables, with_latency
from rlprune.plans.counts import top_mask
from rlprune.tracing.build import build_graph

Formula = Callable[[Layer, int, int], float]


def bilinear(layer: Layer, outputs: int, inputs: int) -> float:
    """What bilinear interpolation gets exactly right."""
    return 1e-3 * (outputs * inputs + 2 * outputs + inputs + 5) * len(layer.kernel)


def model_of(module: nn.Module, size: int, formula: Formula, round_to: int = 1) -> TimedCost:
    graph = build_graph(module, torch.zeros(1, 3, size, size))
    places = layer_tables(graph, find_layers(module, (3, size, size)), round_to)
    latency = assemble(graph, places, {cell: formula(*cell) for place in places for cell in place.shapes()})
    cost = build_cost(graph)
    return with_latency(cost, latency, float(latency(graph.sizes, cost.dense[1])))


def test_whole_networks_are_the_sum_of_their_layers(network: nn.Module) -> None:
    """Against the layers of the network that is really cut, with a formula that the interpolation hits."""
    graph, cost = build_graph(network, torch.zeros(1, 3, 32, 32)), model_of(network, 32, bilinear)
    rng = np.random.default_rng(0)
    for _ in range(4):
        # Below the smallest count that is measured a table is flat.
        counts = rng.integers(np.maximum(graph.sizes // 8, 1) + 1, graph.sizes + 1)
        smaller = prune(network, graph, top_mask(graph, counts, rng.random(graph.sizes.sum())))
        layers = find_layers(smaller, (3, 32, 32))
        expected = sum(bilinear(layer, *layer.shape) for _, layer in layers)
        assert cost(counts)[2] == pytest.approx(expected, rel=1e-9)
    assert cost.ratios(graph.sizes).tolist() == [1, 1, 1]


def test_layers_of_a_block_that_is_out_take_no_time() -> None:
    """Neither those of the tables, nor the elements that they write; against the network that is really cut."""
    net = residual(basic(16), inverted(16), convnext(16), attention(16), basic(16), width=16)
    example = torch.zeros(1, 3, 8, 8)
    graph, cost = build_graph(net, example), model_of(net, 8, bilinear)
    latency, rng = cost.latency, np.random.default_rng(0)
    written = replace(latency, weights=np.array([0.0, 1e6, 0, 0]))
    plans = np.stack([rng.integers(np.maximum(graph.sizes // 2, 1) + 1, graph.sizes + 1) for _ in range(6)])
    for plan in plans[1:]:
        for block in graph.blocks:
            plan[list(block.groups)] *= rng.random() < 0.5
        smaller = prune(net, graph, top_mask(graph, plan, rng.random(graph.sizes.sum())))
        layers = find_layers(smaller, (3, 8, 8))
        assert cost(plan)[2] == pytest.approx(sum(bilinear(layer, *layer.shape) for _, layer in layers), rel=1e-9)
        elements = sum(layer.positions() * layer.shape[0] for _, layer in layers)
        assert written(plan, np.zeros(())) == pytest.approx(elements, rel=1e-9)
    np.testing.assert_allclose(cost(plans)[:, 2], [cost(plan)[2] for plan in plans], rtol=1e-12)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_more_channels_never_take_less(seed: int) -> None:
    """However noisy the measurements are."""
    rng = np.random.default_rng(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 13, 3), nn.Conv2d(13, 24, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 2)
    )
    noisy = {}

    def formula(*cell: object) -> float:
        return noisy.setdefault(cell, float(rng.uniform(0.1, 3)))

    cost = model_of(net, 8, formula)
    counts = rng.integers(1, cost.sizes + 1, (20, 2))
    grown = np.minimum(counts + rng.integers(0, 9, counts.shape), cost.sizes)
    assert (cost(grown) >= cost(counts) * (1 - 1e-12)).all()


def test_the_fit_finds_what_the_tables_lack(network: nn.Module) -> None:
    """Twice the tables, 3 ms for each million of elements, and 0.2 ms in any case."""
    graph = build_graph(network, torch.zeros(1, 3, 32, 32))
    cost, latency = build_cost(graph), model_of(network, 32, bilinear).latency
    rng = np.random.default_rng(1)
    counts, others = rng.integers(1, graph.sizes + 1, (2, 6, len(graph.sizes)))
    truth = np.array([2.0, 3.0, 0.0, 0.2])
    measured, expected = (latency.parts(some, cost(some)[:, 1]) @ truth for some in (counts, others))
    found = fit(latency, cost, counts, measured)
    assert (found.weights >= 0).all()
    np.testing.assert_allclose(found(others, cost(others)[:, 1]), expected, rtol=0.1)
    alone = fit(latency, cost, counts[:1], measured[:1])
    assert alone(counts[:1], cost(counts[:1])[:, 1]) == pytest.approx(measured[:1], rel=0.02)


@pytest.mark.parametrize("round_to", [1, 8])
def test_landing_on_a_latency(round_to: int) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 48, 3, padding=1), nn.Conv2d(48, 40, 1), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(40, 5),
    )  # fmt: skip
    cost = model_of(net, 16, lambda layer, outputs, inputs: 1e-4 * inputs * -(-outputs // 8) * 8 + 0.01, round_to)
    for text in ("latency=0.5", "macs=0.6,latency=0.5", "latency=0.9,params=0.3"):
        projector = BudgetProjector(cost, parse_budget(text), round_to)
        limits = projector.budget.fractions(cost.resources)
        wished = np.exp(np.random.default_rng(0).normal(0, 1, (5, 3))) * cost.sizes
        plans = projector.project(wished)
        assert (cost.ratios(plans) <= limits * (1 + 1e-9)).all()
        assert ((plans % round_to == 0) | (plans == cost.sizes)).all()
        for plan in plans:
            for group in range(3):
                more = plan.copy()
                more[group] = min((plan[group] // round_to + 1) * round_to, cost.sizes[group])
                assert (more == plan).all() or (cost.ratios(more) > limits).any()


def test_a_correction_leaves_the_dense_network() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    cost = model_of(net, 8, bilinear)
    slower = cost.corrected(1.25)
    counts = np.array([3, 5])
    np.testing.assert_allclose(slower.ratios(counts), cost.ratios(counts) * [1, 1, 1.25], rtol=1e-12)
    assert (slower.dense == cost.dense).all()


@pytest.mark.parametrize(("round_to", "multiple"), [(1, 1), (4, 4), (8, 8)])
def test_layers_are_measured_where_plans_will_be(round_to: int, multiple: int) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 100, 3), nn.Conv2d(100, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)
    )
    graph = build_graph(net, torch.zeros(1, 3, 8, 8))
    first, second, last = (place.counts for place in layer_tables(graph, find_layers(net, (3, 8, 8)), round_to))
    assert first[1] == (3,)
    assert last[0] == (2,)
    assert first[0] == second[1]
    assert first[0][-1] == 100
    assert all(count % multiple == 0 for count in first[0][:-1])
    if round_to == 1:
        assert all(count % 2 == 1 for count in first[0][:-1])
    assert max(second[0]) == 6
    assert list(second[0]) == sorted(set(second[0]))
