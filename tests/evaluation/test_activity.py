"""Activity of channels whose maps are known."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlprune.evaluation.activity import channel_activity
from rlprune.tracing.build import build_graph


def pick(channels: list[list[float]]) -> nn.Conv2d:
    """A 1x1 convolution with these weights."""
    layer = nn.Conv2d(len(channels[0]), len(channels), 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(channels)[..., None, None])
    return layer


def constant(*values: list[float], size: int = 2) -> Tensor:
    """Images whose channels are constant."""
    return torch.tensor(values, dtype=torch.float32)[:, :, None, None].expand(-1, -1, size, size)


def test_maps_of_convolutions_and_linear_layers() -> None:
    net = nn.Sequential(
        pick([[1, 0, 0], [0, -2, 0]]), nn.ReLU(), pick([[1, 0], [0, 1], [1, 1]]), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(3, 2),
    )  # fmt: skip
    graph = build_graph(net, torch.zeros(1, 3, 2, 2))
    mean, variation = channel_activity(net, graph, constant([1, -1, 0], [3, 1, 0]))
    # After the ReLU: 1, 3 and 2, 0. Then these two and their sum 3, 3.
    assert mean == pytest.approx([2, 1, 2, 1, 3])
    assert variation == pytest.approx([0.5, 1, 0.5, 1, 0])
    assert net.training


def test_a_map_counts_by_its_size_without_sign() -> None:
    net = nn.Sequential(pick([[1, 0, 0], [0, 1, 0]]), nn.Conv2d(2, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.append(nn.Linear(2, 2))
    images = torch.zeros(1, 3, 2, 2)
    images[0, 0] = torch.tensor([[1.0, -1.0], [4.0, 0.0]])
    mean, variation = channel_activity(net, build_graph(net, torch.zeros(1, 3, 2, 2)), images)
    assert mean[:2] == pytest.approx([1.5, 0])
    assert variation[:2].tolist() == [0, 0]


def test_positions_behind_a_flatten_are_averaged_per_image() -> None:
    net = nn.Sequential(pick([[1, 0, 0], [0, 1, 0]]), nn.Flatten(), nn.Linear(8, 2))
    images = torch.zeros(2, 3, 2, 2)
    # The active place changes from image to image, the activity of the first channel does not.
    images[0, 0, 0, 0] = images[1, 0, 1, 1] = 4
    images[1, 1] = 2
    mean, variation = channel_activity(net, build_graph(net, torch.zeros(1, 3, 2, 2)), images)
    assert mean == pytest.approx([1, 1])
    assert variation == pytest.approx([0, 1])


def test_all_readers_count() -> None:
    """One reads the channels as they are, the other one through a ReLU."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.three = pick([[1, 0, 0], [0, 1, 0]]), nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
            self.last = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(x)
            return self.last((self.two(x) + self.three(x.relu())).mean((2, 3)))

    net = Branches()
    mean, _ = channel_activity(net, build_graph(net, torch.zeros(1, 3, 2, 2)), constant([2, -2, 0]))
    assert mean[:2] == pytest.approx([2, 1])


def test_features_of_tokens_stand_last() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.last = nn.Linear(3, 5), nn.Linear(5, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.two(self.one(x.flatten(2).transpose(1, 2)).sigmoid()).mean(1))

    net, images = Tokens(), torch.randn(3, 3, 2, 2)
    mean, variation = channel_activity(net, build_graph(net, torch.zeros(1, 3, 2, 2)), images)
    maps = net.one(images.flatten(2).transpose(1, 2)).sigmoid().detach().mean(1).numpy()
    assert mean[:5] == pytest.approx(maps.mean(0), rel=1e-5)
    assert variation[:5] == pytest.approx(maps.std(0) / maps.mean(0), rel=1e-4)


def test_the_network_is_left_as_it_was(network: nn.Module) -> None:
    graph = build_graph(network, torch.zeros(1, 3, 32, 32))
    first = next(layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)).train()
    before = first.running_mean.clone() if first.running_mean is not None else torch.zeros(0)
    mean, variation = channel_activity(network, graph, torch.randn(3, 3, 32, 32))
    assert mean.shape == variation.shape == (graph.sizes.sum(),)
    assert np.isfinite(variation).all()
    assert (mean > 0).any()
    assert first.training
    assert first.running_mean is not None
    assert torch.equal(first.running_mean, before)
    assert not any(layer._forward_pre_hooks for layer in network.modules())
