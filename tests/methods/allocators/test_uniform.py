import numpy as np
import pytest
import torch
from torch import nn

from rlprune.cost.budget import parse_budget
from rlprune.cost.exact import build_cost
from rlprune.cost.projection import BudgetProjector
from rlprune.methods.allocators.uniform import uniform
from rlprune.tracing.build import build_graph


@pytest.mark.parametrize("budget", ["0.1", "0.3", "params=0.5", "macs=0.6,params=0.4"])
def test_one_ratio_for_all(network: nn.Module, budget: str) -> None:
    """Against the best common ratio of a fine grid: at least as much in every group, and little more."""
    cost = build_cost(build_graph(network, torch.zeros(1, 3, 32, 32)))
    limits = parse_budget(budget).fractions()
    counts = uniform(BudgetProjector(cost, parse_budget(budget)))
    assert (cost.ratios(counts) <= limits).all()
    grid = np.maximum(np.floor(np.linspace(0, 1, 2001)[:, None] * cost.sizes + 1e-9), 1)
    best = grid[(cost.ratios(grid) <= limits).all(axis=1)][-1]
    assert (counts >= best).all()
    assert np.median(counts - best) <= 1
