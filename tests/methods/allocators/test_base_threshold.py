"""One threshold over all groups, against all thresholds tried one by one."""

import numpy as np
import pytest
import torch
from rivalry import problem_of
from torch import nn
from toys import macs, make_spec

from rlprune.methods.allocators.base_threshold import threshold_plan


def test_by_hand() -> None:
    """Six, five and two are at least 0.9, worth 6 + 30 + 10 + 4 MACs of 152; scores are compared as they are."""
    pieces = [
        np.array([0.5, 1.6, 0.9, 1, 0.9, 1, 0.5, 1.6]),
        np.array([1, 2, 0.8, 0.2, 1, 1.4, 0.2, 1.4]),
        np.array([0.2, 0.4, 2.4, 0.6, 2.4, 0.6, 0.6, 0.8]),
    ]
    assert macs(6, 5, 2) == 50 <= 0.34 * 152
    # The next lower threshold, 0.8, would keep 6, 6 and 3: 6 + 36 + 18 + 6 = 66 MACs; 51.68 may be kept.
    assert threshold_plan(pieces, make_spec("macs=0.34").projector).tolist() == [6, 5, 2]


@pytest.mark.parametrize("budget", ["0.1", "macs=0.6,params=0.4"])
def test_against_all_thresholds(network: nn.Module, budget: str) -> None:
    problem = problem_of(network, torch.zeros(1, 3, 32, 32), budget)
    graph, cost, limits = problem.workload.graph, problem.projector.cost, problem.projector.budget.fractions()
    scores = np.random.default_rng(0).gamma(0.5, size=graph.sizes.sum())
    # Many of them are equal.
    pieces = graph.split(np.ceil(scores * 8))
    counts = threshold_plan(pieces, problem.projector)
    plans = np.array(
        [[max((piece >= edge).sum(), 1) for piece in pieces] for edge in np.unique(np.concatenate(pieces))]
    )
    fitting = plans[(cost.ratios(plans) <= limits).all(axis=1)]
    assert (counts >= (fitting[0] if len(fitting) else 1)).all()
    assert (cost.ratios(counts) <= limits).all()
    grown = counts + np.eye(len(counts), dtype=int)[counts < graph.sizes]
    assert not (cost.ratios(grown) <= limits).all(axis=1).any()
