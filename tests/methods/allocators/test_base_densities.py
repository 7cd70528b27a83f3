"""Keep ratios out of densities, against numbers by hand and the procedure of the paper."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rivalry import make_workload
from torch import nn

from rlprune.cost.budget import parse_budget
from rlprune.cost.exact import build_cost
from rlprune.cost.projection import BudgetProjector
from rlprune.methods.allocators.base_densities import (
    groups_read_last,
    layer_weights,
    random_graph_densities,
    random_graph_plan,
    shares,
)
from rlprune.tracing.build import build_graph


@pytest.mark.parametrize("network", ["mixed"], indirect=True)
def test_every_side_that_can_be_cut_gets_an_equal_part_of_a_density(network: nn.Module) -> None:
    """A residual sum, a concatenation, a depthwise convolution over it, a flatten, and the two ends."""
    graph = build_graph(network, torch.zeros(1, 3, 32, 32))
    names = [tensor.name.removesuffix(".weight") for tensor in layer_weights(graph)]
    log = dict(zip(names, np.log(np.linspace(0.1, 0.9, len(names))), strict=True))
    found = dict(zip([group.name for group in graph.groups], shares(graph) @ np.array(list(log.values())), strict=True))
    assert found == pytest.approx(
        {
            # The stem's inputs are an image, the body's both sides are this group.
            "stem": (log["stem"] + log["body"] + log["left"] / 2 + log["right"] / 2) / 5,
            "left": (log["left"] / 2 + log["depth"] + log["hidden"] / 2) / 3,
            "right": (log["right"] / 2 + log["depth"] + log["hidden"] / 2) / 3,
            "hidden": (log["hidden"] / 2 + log["last"]) / 2,
        }
    )
    assert [graph.groups[number].name for number in groups_read_last(graph)] == ["hidden"]


def papers_densities(strengths: list[float], weights: list[int], density: float) -> list[float]:
    """The procedure as it is written down: whatever is above 1 becomes dense, and the scale is solved for anew."""
    dense: set[int] = set()
    while True:
        others = [number for number in range(len(weights)) if number not in dense]
        left = density * sum(weights) - sum(weights[number] for number in dense)
        scale = left / sum(strengths[number] * weights[number] for number in others)
        above = {number for number in others if scale * strengths[number] > 1}
        if not above:
            return [1.0 if number in dense else scale * strengths[number] for number in range(len(weights))]
        dense |= above


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=2, max_size=6), st.floats(-4, 6))
@settings(max_examples=100, deadline=None)
def test_densities_are_those_of_the_papers_procedure(shapes: list[tuple[int, int]], log_scale: float) -> None:
    """For the density of the whole network that a scale comes to."""
    strengths, weights = [(a + b) / (a * b) for a, b in shapes], [a * b for a, b in shapes]
    found = np.exp(random_graph_densities(np.array(strengths), log_scale))
    density = float(found @ weights) / sum(weights)
    if density < 1:
        assert found == pytest.approx(papers_densities(strengths, weights, density))
    assert (found <= 1).all()


def test_layers_of_equal_shapes_keep_alike() -> None:
    """Four layers of 16 to 16 in a chain; a group between two of them has the density's square root."""
    workload = make_workload(5, 16)
    projector = BudgetProjector(workload.cost, parse_budget(0.3))
    counts = random_graph_plan(workload.graph, np.array([1.0625, *[0.125] * 4, 0.5625]), projector)
    assert counts[1:4].max() - counts[1:4].min() <= 1
    # What the ends have is clamped: the image's layer asks for all of it.
    assert counts[0] > counts[1]
    assert counts[4] > counts[3]


class Branches(nn.Module):
    """Convolutions of one image side by side, which a last layer reads all of."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        # Each with a kernel of its own, so that no two channels cost the same.
        self.branches = nn.ModuleList([nn.Conv2d(3, width, width // 4 * 2 - 3, padding="same") for width in widths])
        self.join, self.head = nn.Conv2d(sum(widths), 12, 1), nn.Linear(12, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([branch(x) for branch in self.branches], 1)
        return self.head(self.join(joined).mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("budget", [0.2, 0.4, 0.7])
def test_other_order_of_layers_other_order_of_counts(budget: float) -> None:
    found = []
    for widths in ((8, 12, 16), (16, 8, 12)):
        graph = build_graph(Branches(*widths), torch.zeros(1, 3, 8, 8))
        projector = BudgetProjector(build_cost(graph), parse_budget(budget))
        shapes = [tensor.shape for tensor in layer_weights(graph)]
        counts = random_graph_plan(graph, np.array([sum(shape) / math.prod(shape) for shape in shapes]), projector)
        found.append({int(size): int(count) for size, count in zip(graph.sizes, counts, strict=True)})
    assert found[0] == found[1]


@pytest.mark.parametrize("budget", ["0.1", "params=0.5"])
def test_the_budget_is_met_and_nothing_is_left_of_it(network: nn.Module, budget: str) -> None:
    graph = build_graph(network, torch.zeros(1, 3, 32, 32))
    cost, limits = build_cost(graph), parse_budget(budget).fractions()
    strengths = np.random.default_rng(0).random(len(layer_weights(graph)))
    counts = random_graph_plan(graph, strengths, BudgetProjector(cost, parse_budget(budget)))
    assert (cost.ratios(counts) <= limits).all()
    grown = counts + np.eye(len(counts), dtype=int)[counts < graph.sizes]
    assert not (cost.ratios(grown) <= limits).all(axis=1).any()
