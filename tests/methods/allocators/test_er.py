"""The Erdős-Rényi rule with a scale solved for by hand."""

import torch
from rivalry import problem_of
from torch import nn

from rlprune import registry


def test_by_hand() -> None:
    """Strengths are 1/1 + 1/20, 1/20 + 1/30 and 1/30 + 1/10; at a scale of 4.8 densities are 1 (5.04), 0.4 and 0.64.

    The first group keeps (1 x 0.4^½)^½ = 0.795 of 20, the second (0.4^½ x 0.64)^½ = 0.636 of 30: 15 and 19.
    MACs are a + 9 a b + 10 b on one pixel: 15 + 2565 + 190 = 2770. One more anywhere is 172 or 145 more.
    """
    net = nn.Sequential(
        nn.Conv2d(1, 20, 1), nn.Conv2d(20, 30, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(30, 10)
    )
    problem = problem_of(net, torch.zeros(1, 1, 1, 1), {"macs": 2800 / (20 + 5400 + 300)})
    assert registry.make("allocator", "er").allocate(problem).counts.tolist() == [15, 19]
    assert len(problem.seen) == 1
