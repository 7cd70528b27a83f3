"""Counts by one relative error, from products that the test makes itself and draws that it really makes."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from rivalry import problem_of
from torch import nn

from rlprune import registry
from rlprune.methods.allocators.pfp import different, difficulty, draws
from rlprune.methods.allocators.uniform import uniform
from rlprune.tracing.build import build_graph


def test_different_channels_are_counted_as_they_are_drawn() -> None:
    contributions = np.array([0.9, 0.5, 0.05, 0.05, 0.0])
    rng = np.random.default_rng(0)
    for count in (1, 3, 10, 40):
        drawn = rng.choice(5, (4000, count), p=contributions / 1.5)
        mean = np.mean([len(set(row)) for row in drawn.tolist()])
        assert different(contributions, count) == pytest.approx(mean, abs=0.05)
    # A dead channel never comes, and where all are dead one stays.
    assert different(contributions, 1e20) == pytest.approx(4)
    assert different(np.zeros(3), 0) == 1


def test_the_bound_by_hand() -> None:
    """Two contributions of 0.5 and 0.25, read at 4 x 4 places by a 3 x 3 kernel, at an error of one half."""
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(48, 2))
    first, second = difficulty(net, build_graph(net, torch.zeros(1, 1, 6, 6)))
    assert first == pytest.approx(6 * (math.log(8 * 17 * 9) + 16 * math.log(10)))
    # A linear layer makes one sum an output.
    assert second == pytest.approx(6 * (math.log(8 * 2) + 16 * math.log(10)))
    # 3 x 7 x 100 x 0.75 x 4.
    assert draws(0.5, np.array([100.0]), np.array([0.75])) == 6300


@pytest.mark.parametrize("budget", [0.2, 0.4, 0.7, 1.0])
def test_an_end_to_end_run(budget: float) -> None:
    """MACs are 3 a + a b + b c + 4 c on one pixel; of many errors the lowest that fits."""
    sizes = (3, 8, 10, 12, 4)
    layers = [nn.Conv2d(inputs, outputs, 1) for inputs, outputs in pairwise(sizes[:-1])]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(12, 4))
    # Nothing is negative, so that a contribution is w a / Σ w a. Most of the first group's channels hardly have any.
    for layer in (*layers, net[-1]):
        nn.init.uniform_(layer.weight, 0.01, 1)
        nn.init.uniform_(layer.bias, 0, 0.1)  # type: ignore[arg-type]
    layers[1].weight.data[:, :6] *= 0.005
    images = torch.rand(6, 3, 1, 1)
    problem = problem_of(net, images[:1], budget, scores=np.arange(30.0), batch=(images, torch.zeros(6).long()))
    found = registry.make("allocator", "pfp").allocate(problem)
    highest, features = [], images.flatten(1)
    for layer, reader in zip(layers, (*layers[1:], net[-1]), strict=True):
        features = features @ layer.weight.flatten(1).T + layer.bias
        products = (features[:, None, :] * reader.weight.flatten(1)).double()
        highest.append((products / products.sum(2, keepdim=True)).amax((0, 1)).tolist())

    def kept(error: float) -> list[int]:
        counts = []
        for mine in highest:
            count = math.ceil(3 * (6 + 2 * error) * 6 * math.log(8 * 2 / 1e-16) * sum(mine) / error**2)
            counts.append(math.floor(sum(1 - (1 - one / sum(mine)) ** count for one in mine) + 1e-6))
        return counts

    def cost(a: int, b: int, c: int) -> int:
        return 3 * a + a * b + b * c + 4 * c

    plans = [kept(error) for error in np.geomspace(1e6, 1, 4000)]
    last = [plan for plan in plans if cost(*plan) <= budget * cost(8, 10, 12)][-1]
    assert found.counts.tolist() == problem.projector.fill(np.array([last]))[0].tolist()
    assert (found.counts.tolist() == uniform(problem.projector).tolist()) == (budget == 1)
    assert len(problem.seen) == 1
