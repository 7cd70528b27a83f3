"""The last layer is dense, and the rest is as with its rival."""

import numpy as np
import pytest
import torch
from rivalry import problem_of
from torch import nn

from rlprune import registry


def test_all_that_the_last_layer_reads_stays(network: nn.Module) -> None:
    name, layer = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Linear)][-1]
    kept = {}
    for method in ("erk-plus", "erk"):
        problem = problem_of(network, torch.zeros(1, 3, 32, 32), 0.3)
        counts = registry.make("allocator", method).allocate(problem).counts
        read = [name in group.consumers for group in problem.workload.graph.groups]
        kept[method] = counts[read].sum(), counts[~np.array(read)].sum()
    assert kept["erk-plus"][0] == layer.in_features >= kept["erk"][0]
    # Which has to be paid for, unless it was so before.
    assert (kept["erk-plus"][1] < kept["erk"][1]) == (layer.in_features > kept["erk"][0])


def test_by_hand() -> None:
    """Strengths of the first two layers are 23/20 and 56/5400; at a scale of 6.25 densities are 1 and 0.0648.

    The first group keeps (0.0648^½)^½ = 0.5046 of 20, and the second all of 30 as its last layer is dense.
    MACs are a + 9 a b + 10 b on one pixel: 10 + 2700 + 300.
    """
    net = nn.Sequential(
        nn.Conv2d(1, 20, 1), nn.Conv2d(20, 30, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(30, 10)
    )
    problem = problem_of(net, torch.zeros(1, 1, 1, 1), {"macs": 3011 / (20 + 5400 + 300)})
    assert registry.make("allocator", "erk-plus").allocate(problem).counts.tolist() == [10, 30]


@pytest.mark.parametrize("budget", [0.02, 0.04])
def test_a_budget_below_what_a_dense_last_layer_costs_is_met(budget: float) -> None:
    """Thirty channels behind one alone are 1 + 270 + 300 of 5720 MACs, 10 %."""
    net = nn.Sequential(
        nn.Conv2d(1, 20, 1), nn.Conv2d(20, 30, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(30, 10)
    )
    first, second = (
        registry.make("allocator", "erk-plus").allocate(problem_of(net, torch.zeros(1, 1, 1, 1), budget)).counts
    )
    assert first + 9 * first * second + 10 * second <= budget * 5720
    assert second < 30
