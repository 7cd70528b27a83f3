"""The Erdős-Rényi-Kernel rule with a scale solved for by hand."""

import numpy as np
import pytest
import torch
from rivalry import problem_of
from torch import nn

from rlprune import registry
from rlprune.methods.allocators.erk import kernel_strengths
from rlprune.tracing.build import build_graph


def test_by_hand() -> None:
    """Strengths are 23/20, 56/5400 and 40/300; at a scale of 6.25 densities are 1 (7.19), 0.0648 and 0.8333.

    The first group keeps (0.0648^½)^½ = 0.5046 of 20, the second (0.0648^½ x 0.8333)^½ = 0.4606 of 30: 10 and 13.
    MACs are a + 9 a b + 10 b on one pixel: 10 + 1170 + 130 = 1310. One more anywhere is 118 or 100 more.
    """
    net = nn.Sequential(
        nn.Conv2d(1, 20, 1), nn.Conv2d(20, 30, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(30, 10)
    )
    graph = build_graph(net, torch.zeros(1, 1, 1, 1))
    assert kernel_strengths(graph) == pytest.approx([23 / 20, 56 / 5400, 40 / 300])
    problem = problem_of(net, torch.zeros(1, 1, 1, 1), {"macs": 1320 / (20 + 5400 + 300)})
    assert registry.make("allocator", "erk").allocate(problem).counts.tolist() == [10, 13]
    assert len(problem.seen) == 1


def test_kernels_count_where_there_are_any() -> None:
    """Depthwise weights have one input; vectors of a flattened image have none of its pixels but as inputs."""
    net = nn.Sequential(nn.Conv2d(3, 4, (3, 5)), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(4 * 4 * 2, 2))
    strengths = kernel_strengths(build_graph(net, torch.zeros(1, 3, 8, 8)))
    assert strengths == pytest.approx([15 / 180, 11 / 36, 34 / 64])
    assert np.isfinite(strengths).all()
