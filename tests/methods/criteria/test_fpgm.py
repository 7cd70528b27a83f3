"""Distances of filters, one by one."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from scoring import conv, coupled, head, scores_of
from torch import Tensor, nn


def brute(filters: Tensor) -> np.ndarray:
    """Sums of distances, number by number."""
    rows = [[float(value) for value in row] for row in filters.flatten(1)]
    return np.array([sum(math.dist(one, other) for other in rows) for one in rows])


def layer_scores(filters: Tensor) -> np.ndarray:
    return scores_of("fpgm", nn.Sequential(conv(filters), *head(len(filters))).eval())["0"]


def test_three_filters() -> None:
    # Distances: sqrt 2 from the first to the second, sqrt 17 to the third, sqrt 13 between these.
    sums = np.sqrt([2, 2, 17]) + np.sqrt([17, 13, 13])
    filters = torch.tensor([[1.0, 1.0, 5.0], [2.0, 0.0, 5.0], [0.0, -3.0, 5.0]])
    assert layer_scores(filters) == pytest.approx(sums / sums.mean())


def test_distances_are_those_of_the_filters_and_not_of_their_norms() -> None:
    # All have norm 5, and all magnitudes are those of another; the first two lie opposite.
    filters = torch.tensor([[3.0, 4.0, 0.0], [-3.0, -4.0, 0.0], [4.0, 3.0, 0.0]])
    sums = np.array([10 + 2**0.5, 10 + 98**0.5, 2**0.5 + 98**0.5])
    assert layer_scores(filters) == pytest.approx(sums / sums.mean())


@settings(deadline=None, max_examples=15)
@given(some.floats(-100, 100), some.integers(0, 100))
def test_moving_all_filters_changes_nothing(step: float, seed: int) -> None:
    filters = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(seed))
    direction = torch.randn(3, 3, 3, generator=torch.Generator().manual_seed(seed + 1))
    assert layer_scores(filters + step * direction) == pytest.approx(layer_scores(filters), rel=1e-4)


def test_the_mean_filter_is_the_most_replaceable_and_equal_ones_are_alike() -> None:
    filters = torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    filters[3] = filters[[0, 1, 2, 4, 5, 6]].mean(0)
    filters[7] = filters[0]
    scores = layer_scores(filters)
    assert scores.argmin() == 3
    assert scores[7] == scores[0]
    assert scores == pytest.approx(brute(filters) / brute(filters).mean())


def test_a_grouped_layer_is_the_dense_one_with_zeros() -> None:
    compact = torch.randn(6, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    dense = torch.zeros(6, 6, 3, 3)
    for channel in range(6):
        start = 2 * (channel // 2)
        dense[channel, start : start + 2] = compact[channel]
    net = nn.Sequential(conv(torch.ones(6, 3)), conv(compact, groups=3), conv(torch.ones(4, 6)), *head(4)).eval()
    # The filters of a group go together. Those of the first layer are all alike, and add nothing.
    sums = brute(dense)
    assert scores_of("fpgm", net)["0"] == pytest.approx(sums.reshape(3, 2).sum(1) / sums.mean())


def test_tied_layers_add_up() -> None:
    net = coupled()
    sums = {name: brute(net.get_parameter(f"{name}.weight").detach()) for name in ("stem", "body", "left")}
    shares = {name: mine / mine.mean() for name, mine in sums.items()}
    scores = scores_of("fpgm", net)
    assert scores["stem"] == pytest.approx(shares["stem"] + shares["body"])
    assert scores["left"] == pytest.approx(shares["left"])
