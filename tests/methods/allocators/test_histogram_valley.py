"""The valley of scales that were put into their bins by hand, and what it leaves of networks."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from residual import EXAMPLE, basic, network
from rivalry import problem_of
from torch import Tensor, nn

from rlprune import registry
from rlprune.errors import UserError
from rlprune.methods.allocators.histogram_valley import channel_scales, valley
from rlprune.methods.allocators.uniform import uniform


def binned(*counts: int) -> np.ndarray:
    """So many scales in the bins from 0 on, each in the middle of its bin."""
    return np.repeat(0.01 * np.arange(len(counts)) + 0.005, counts)


@pytest.mark.parametrize(
    ("counts", "edge"),
    [
        ((5, 2, 3), 0.01),
        # The first of two.
        ((9, 4, 1, 3, 0, 8), 0.02),
        # Nothing between two hills: all of it is the valley.
        ((7, 0, 0, 0, 6), 0.01),
        # Where it is flat before it falls and after it has fallen.
        ((4, 4, 2, 2, 2, 3), 0.02),
        # What is empty below the first scale is none.
        ((0, 0, 3, 1, 2), 0.03),
        # One hill alone, one side of it, and one bin.
        ((1, 3, 5, 4, 1), None),
        ((5, 3, 2, 2), None),
        ((1, 2, 3), None),
        ((0, 0, 4), None),
    ],
)
def test_by_hand(counts: tuple[int, ...], edge: float | None) -> None:
    assert valley(binned(*counts)) == (None if edge is None else pytest.approx(edge))


def test_scales_on_edges_of_bins() -> None:
    """0.29 / 0.01 is 28.999…, and still in bin 29."""
    assert valley(np.repeat([0.28, 0.29, 0.3], [3, 1, 3])) == pytest.approx(0.29)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=12).filter(any))
@settings(max_examples=200, deadline=None)
def test_it_is_the_first_local_minimum(counts: list[int]) -> None:
    """By the definition: fewer than the next other number before it and after it, of all runs of equal bins."""
    first = next(place for place, count in enumerate(counts) if count)
    starts = [place for place in range(first, len(counts)) if place == first or counts[place] != counts[place - 1]]
    heights = [counts[place] for place in starts]
    minima = [starts[run] for run in range(1, len(starts) - 1) if heights[run - 1] > heights[run] < heights[run + 1]]
    found = valley(binned(*counts))
    assert found == (pytest.approx(0.01 * minima[0]) if minima else None)


class Polarised(nn.Module):
    """1x1 convolutions on one pixel to groups of 10, 8 and 10, with the scales of a training that drives them apart."""

    def __init__(self, *scales: Tensor) -> None:
        super().__init__()
        sizes = [2, *map(len, scales)]
        self.convs = nn.ModuleList([nn.Conv2d(*pair, 1, bias=False) for pair in pairwise(sizes)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(len(scale)) for scale in scales])
        self.head = nn.Linear(sizes[-1], 2, bias=False)
        for norm, scale in zip(self.norms, scales, strict=True):
            norm.weight.data.copy_(scale)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x)).relu()
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


def spread(low: int, high: int) -> Tensor:
    """So many scales near 0, some of them negative, and so many near 0.5."""
    return torch.cat([torch.full((low,), 0.004) * torch.tensor([1, -1]).repeat(low)[:low], torch.full((high,), 0.5)])


@pytest.mark.parametrize("budget", [1.0, 0.5, 0.26])
def test_an_end_to_end_run(budget: float) -> None:
    """8, 2 and 5 are above the valley. MACs are 2 a + a b + b c + 2 c: 16 + 16 + 10 + 10 = 52 of 200."""
    problem = problem_of(Polarised(spread(2, 8), spread(6, 2), spread(5, 5)), torch.zeros(1, 2, 1, 1), budget)
    found = registry.make("allocator", "histogram-valley").allocate(problem)
    assert found.remark == "the valley at a scale of 0.01 keeps 26 % of the MACs by itself"
    # Nearly twice as many are 10, 3 and 9 with 20 + 30 + 27 + 18 = 95, and twice as many 10, 4 and 10 with 120.
    assert found.counts.tolist() == {1.0: [10, 8, 10], 0.5: [10, 3, 10], 0.26: [8, 2, 5]}[budget]
    assert len(problem.seen) == 1


def test_a_channel_stays_as_long_as_one_of_its_batch_norms_scales_it() -> None:
    """The stream of a residual network has two here, and one convolution that adds nothing."""
    net = network(basic(), basic())
    first, second = net[1][0].norm2.weight, net[1][1].norm2.weight
    first.data.copy_(torch.tensor([0.1, 0.9, 0.1, 0.9, -0.9, 0.1, 0.1, 0.1]))
    second.data.copy_(torch.tensor([0.2, 0.1, 0.8, 0.1, 0.1, 0.1, 0.1, -0.8]))
    problem = problem_of(net, EXAMPLE, 0.5)
    graph = problem.workload.graph
    every, highest = channel_scales(net, graph)
    stream = next(number for number, size in enumerate(graph.sizes) if size == 8)
    assert graph.split(highest)[stream] == pytest.approx([0.2, 0.9, 0.8, 0.9, 0.9, 0.1, 0.1, 0.8])
    assert len(every) == 8 + 8 + 6 + 6


def test_without_a_valley_the_plan_is_the_uniform_one() -> None:
    net = Polarised(torch.full((10,), 0.5), torch.full((8,), 0.5), torch.full((10,), 0.5))
    problem = problem_of(net, torch.zeros(1, 2, 1, 1), 0.4)
    found = registry.make("allocator", "histogram-valley").allocate(problem)
    assert found.remark == "there is no valley"
    assert found.counts.tolist() == uniform(problem.projector).tolist()


def test_a_network_without_batch_norm() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4, affine=False), nn.Conv2d(4, 2, 1))
    with pytest.raises(UserError, match="the channels of '0' pass no batch norm that scales them"):
        registry.make("allocator", "histogram-valley").check(problem_of(net, torch.zeros(1, 1, 2, 2), 0.5))
