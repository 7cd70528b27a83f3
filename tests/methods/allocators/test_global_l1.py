"""One threshold for all groups, against a threshold found by hand and by trying all of them."""

import numpy as np
import pytest
import torch
from residual import EXAMPLE, basic
from residual import network as residual
from torch import nn
from toys import macs, make_spec

from rlprune.cost.budget import parse_budget
from rlprune.cost.exact import build_cost
from rlprune.cost.projection import BudgetProjector
from rlprune.graph.structure import Graph, Group
from rlprune.methods.allocators.global_l1 import one_threshold
from rlprune.methods.criteria.base import score_channels
from rlprune.tracing.build import build_graph


def graph_of(groups: int, channels: int) -> Graph:
    return Graph(
        tuple(Group(str(number), channels, channels * number, (), ()) for number in range(groups)), (), (), (), {}, {}
    )


def test_by_hand() -> None:
    """Means 2, 20 and 0.5; relative to them six, five and two channels are at least 0.9, worth 6 + 30 + 10 + 4 MACs."""
    scores = np.concatenate(
        [
            [1, 1.0, 1.8, 1.8, 2, 2, 3.2, 3.2],  # 0.5 0.5 0.9 0.9 1 1 1.6 1.6
            [4, 4, 16, 20, 20, 28, 28, 40],  # 0.2 0.2 0.8 1 1 1.4 1.4 2
            [0.1, 0.2, 0.3, 0.3, 0.3, 0.4, 1.2, 1.2],  # 0.2 0.4 0.6 0.6 0.6 0.8 2.4 2.4
        ]
    )
    projector = make_spec("macs=0.34").projector
    assert macs(6, 5, 2) == 50 <= 0.34 * 152
    # The next lower threshold, 0.8, would keep 6, 6 and 3: 6 + 36 + 18 + 6 = 66 MACs. One more channel anywhere is
    # above 51.68, too.
    assert one_threshold(graph_of(3, 8), scores, projector).tolist() == [6, 5, 2]


def test_a_threshold_takes_out_no_block() -> None:
    """All channels of a block's inner group are below it, and still the smallest number stays."""
    graph = build_graph(residual(basic(), basic()), EXAMPLE)
    projector = BudgetProjector(build_cost(graph), parse_budget("macs=0.1"))
    # Flat scores: one threshold is above all of a group's at once.
    scores = np.concatenate([np.linspace(0, 2, 8), np.full(6, 1.0), np.linspace(0, 2, 6)])
    assert (one_threshold(graph, scores, projector) > 0).all()


def test_only_ratios_to_the_mean_of_a_group_matter() -> None:
    scores = np.random.default_rng(0).random(24)
    scaled = scores * np.repeat([1e-3, 1, 1e3], 8)
    projector = make_spec().projector
    assert (
        one_threshold(graph_of(3, 8), scores, projector).tolist()
        == one_threshold(graph_of(3, 8), scaled, projector).tolist()
    )


@pytest.mark.parametrize("budget", ["0.1", "0.3", "params=0.5", "1"])
def test_against_all_thresholds(network: nn.Module, budget: str) -> None:
    """No lower threshold fits; what is kept beyond the lowest that does cannot grow any more."""
    graph = build_graph(network, torch.zeros(1, 3, 32, 32))
    cost, limits = build_cost(graph), parse_budget(budget)
    scores = score_channels("l1", network, graph, (torch.zeros(1), torch.zeros(1)))
    counts = one_threshold(graph, scores, BudgetProjector(cost, limits))
    relative = [piece / piece.mean() for piece in graph.split(scores)]
    plans = np.array(
        [[max((piece >= edge).sum(), 1) for piece in relative] for edge in np.sort(np.concatenate(relative))]
    )
    fitting = plans[(cost.ratios(plans) <= limits.fractions()).all(axis=1)]
    assert (counts >= fitting[0]).all() if len(fitting) else (counts >= 1).all()
    assert (cost.ratios(counts) <= limits.fractions()).all()
    grown = counts + np.eye(len(counts), dtype=int)[counts < graph.sizes]
    assert not (cost.ratios(grown) <= limits.fractions()).all(axis=1).any()
