"""Observations have a fixed length, stay in their box, and describe the network they come from."""

import numpy as np
import pytest
import torch
from torch import nn

from rlprune.cost.exact import build_cost
from rlprune.envs.observation import BOUND, DYNAMIC, Features, build_features
from rlprune.evaluation.sensitivity import Sensitivity
from rlprune.tracing.build import build_graph


def features_of(channels: tuple[int, int], scale: float = 1.0) -> Features:
    net = nn.Sequential(
        nn.Conv2d(3, channels[0], 3, padding=1),
        nn.BatchNorm2d(channels[0]),
        nn.Conv2d(channels[0], channels[1], 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels[1], 2),
    )
    graph = build_graph(net, torch.zeros(1, 3, 4, 4))
    scores = scale * np.arange(1.0, sum(channels) + 1)
    sensitivity = Sensitivity(np.array([1, 0.5, 0.1]), np.array([[0, 0.2, 0.4], [0, 0.1, 0.1]]))
    base = graph.sizes / 2
    return build_features(graph, build_cost(graph), scores, (scores, scores), sensitivity, base)


def test_same_length_for_every_network() -> None:
    assert features_of((4, 8)).size == features_of((16, 6)).size == len(features_of((4, 8)).names)


def test_facts_by_hand() -> None:
    """4 channels from a 3x3 convolution at 16 positions, 8 from a 1x1 one: 1728 + 512 + 16 MACs."""
    features = features_of((4, 8))
    fact = {name: features.static[:, column] for column, name in enumerate(features.names[:-DYNAMIC])}
    assert fact["channels"] == pytest.approx([0.5, 1])
    assert fact["kernel"] == pytest.approx([1, 1 / 9])
    assert fact["inputs"] == pytest.approx([0.75, 1])
    assert fact["base_ratio"] == pytest.approx([0.5, 0.5])
    assert fact["rise_at_0.5"] == pytest.approx([0.5, 0.25])
    # Between the points that were measured, 0.5 and 0.1.
    assert fact["rise_at_0.25"] == pytest.approx([0.5 + 0.5 * 0.25 / 0.4, 0.25])
    total = 4 * 27 * 16 + 32 * 16 + 16
    assert fact["macs_share"] == pytest.approx(
        [1 - (27 * 16 + 8 * 16 + 16) / total, 1 - (4 * 27 * 16 + 64 + 2) / total]
    )
    assert fact["static_q5"][0] == pytest.approx(np.quantile([1, 2, 3, 4], 0.05) / 2.5)


def test_neighbours_by_hand() -> None:
    """The first group has one after it and none before it; the second the other way round."""
    features = features_of((4, 8))
    fact = {name: features.static[:, column] for column, name in enumerate(features.names[:-DYNAMIC])}
    for name in ("macs_share", "params_share", "rise_at_0.5", "base_ratio"):
        assert fact[f"before_{name}"].tolist() == [0, fact[name][0]]
        assert fact[f"after_{name}"].tolist() == [fact[name][1], 0]
    assert features.neighbours.tolist() == [[[0, 0], [1, 0]], [[0, 1], [0, 0]]]


def test_importance_is_relative_to_its_own_network() -> None:
    np.testing.assert_allclose(features_of((4, 8)).static, features_of((4, 8), scale=100).static)


def test_stays_in_its_box() -> None:
    observed = features_of((4, 8)).observe(0, np.full((3, DYNAMIC), 1e9))
    assert observed.dtype == np.float32
    assert observed.shape == (3, features_of((4, 8)).size)
    assert np.abs(observed).max() == BOUND
