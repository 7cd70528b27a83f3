"""Counts by connection sensitivity, from gradients that the test takes itself."""

import numpy as np
import pytest
import torch
from rivalry import problem_of
from torch import nn

from rlprune import registry
from rlprune.methods.allocators.uniform import uniform


@pytest.mark.parametrize("budget", [0.2, 0.4, 0.7])
def test_an_end_to_end_run(budget: float) -> None:
    """MACs are 3 a + 9 a b + b c + 4 c on one pixel; the lowest threshold on Σ |w g| that fits, of all of them."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 10, 3, padding=1), nn.ReLU(), nn.Conv2d(10, 12, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(12, 4),
    )  # fmt: skip
    net[2].weight.data[2:] *= 0.01
    images, labels = torch.randn(16, 3, 1, 1), torch.randint(4, (16,))
    # The criterion that says which channels stay has no say in it.
    problem = problem_of(net, images[:1], budget, scores=np.arange(30.0), batch=(images, labels))
    found = registry.make("allocator", "snip-ratio").allocate(problem)
    weights = [net[number].weight for number in (0, 2, 4)]
    gradients = torch.autograd.grad(nn.functional.cross_entropy(net(images), labels), weights)
    sums = [(w * g).abs().flatten(1).sum(1).detach().numpy() for w, g in zip(weights, gradients, strict=True)]

    def cost(a: int, b: int, c: int) -> int:
        return 3 * a + 9 * a * b + b * c + 4 * c

    kept = [[max(int((mine >= edge).sum()), 1) for mine in sums] for edge in np.sort(np.concatenate(sums))]
    first = next(counts for counts in kept if cost(*counts) <= budget * cost(8, 10, 12))
    assert found.counts.tolist() == problem.projector.fill(np.array([first]))[0].tolist()
    assert found.counts.tolist() != uniform(problem.projector).tolist()
    assert len(problem.seen) == 1
