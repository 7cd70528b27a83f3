"""Neuron merging against filters that are multiples of one another, and against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlprune.errors import UserError
from rlprune.graph.structure import Graph
from rlprune.graph.surgery import prune
from rlprune.methods.recovery.base import Repairs
from rlprune.tracing.build import build_graph

IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(5))


def head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4)]


def normed(channels: int) -> nn.BatchNorm2d:
    """With statistics and parameters that matter, some scales below 0."""
    norm = nn.BatchNorm2d(channels)
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        norm.weight.uniform_(0.5, 2)
        norm.weight[1::3] *= -1
        norm.bias.normal_()
    return norm


def double(network: nn.Sequential, layer: int, kept: int, gone: int, factor: float) -> None:
    """Make one filter such that behind its batch norm, if any, it is a multiple of another."""
    conv = network[layer]
    with torch.no_grad():
        conv.weight[gone] = 0.5 * conv.weight[kept]
        if not isinstance(norm := network[layer + 1], nn.BatchNorm2d):
            conv.weight[gone] = factor * conv.weight[kept]
            conv.bias[gone] = factor * conv.bias[kept]
            return
        inner = [0.0 if conv.bias is None else conv.bias[channel] for channel in (kept, gone)]
        slope, shift = _affine(norm, kept, inner[0])
        norm.weight[gone] = factor * slope / 0.5 * (norm.running_var[gone] + norm.eps).sqrt()
        own = norm.weight[gone] / (norm.running_var[gone] + norm.eps).sqrt()
        norm.bias[gone] = factor * shift - own * (inner[1] - norm.running_mean[gone])


def _affine(norm: nn.BatchNorm2d, channel: int, bias: Tensor | float) -> tuple[Tensor, Tensor]:
    slope = norm.weight[channel] / (norm.running_var[channel] + norm.eps).sqrt()
    return slope, slope * (bias - norm.running_mean[channel]) + norm.bias[channel]


def traced(network: nn.Module) -> Graph:
    return build_graph(network.eval(), torch.zeros(1, 3, 8, 8))


def without(graph: Graph, group: str, *channels: int) -> np.ndarray:
    kept = np.ones(int(graph.sizes.sum()), dtype=bool)
    start = next(each.start for each in graph.groups if each.name == group)
    kept[[start + channel for channel in channels]] = False
    return kept


NETWORKS = {
    "batch-norm": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False), normed(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 3, padding=1), *head(5)
    ),
    "bias-and-batch-norm": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3), normed(6), nn.LeakyReLU(0.2), nn.Conv2d(6, 5, 3, padding=1), normed(5), nn.ReLU(), *head(5)
    ),
    "no-batch-norm": lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(), *head(5)),
    "flattened": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3), normed(6), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(54, 4)
    ),
    "vectors": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 4)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_multiples_of_one_another_are_merged_without_loss(name: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    layer = int(name == "vectors")
    double(network, layer, kept=2, gone=4, factor=1.7)
    double(network, layer, kept=2, gone=5, factor=0.3)
    graph = traced(network)
    kept = without(graph, str(layer), 4, 5)
    smaller = Repairs("merge", network, graph, IMAGES).cut(kept)
    with torch.no_grad():
        torch.testing.assert_close(smaller(IMAGES), network(IMAGES), rtol=1e-4, atol=1e-5)
        assert (prune(network, graph, kept).eval()(IMAGES) - network(IMAGES)).abs().max() > 1e-3
    assert len(smaller[layer].weight) == 4


def test_merging_in_layers_one_after_the_other() -> None:
    """The second layer's own filters have lost what reads the merged channel, and still are multiples."""
    torch.manual_seed(1)
    first = [nn.Conv2d(3, 6, 3, bias=False), normed(6), nn.ReLU()]
    network = nn.Sequential(*first, nn.Conv2d(6, 5, 3, bias=False), normed(5), nn.ReLU(), *head(5)).eval()
    double(network, 0, kept=1, gone=3, factor=2.5)
    double(network, 3, kept=0, gone=4, factor=0.6)
    graph = traced(network)
    kept = without(graph, "0", 3) & without(graph, "3", 4)
    with torch.no_grad():
        given = Repairs("merge", network, graph, IMAGES).cut(kept)(IMAGES)
        torch.testing.assert_close(given, network(IMAGES), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bends", [False, True])
def test_scale_and_bias_by_hand(bends: bool) -> None:
    """Two channels of two inputs, batch norm, two outputs.

    Filters (3, 4) and (6, 8), so that s = 2 where the second is cut. γ = (2, 3), σ = (2, 4), μ = (1, -2), β = (1, 5).
    S = 2 · (3 / 2) · (2 / 4) = 3 / 2, B = (3 / 4) (2 (1 − 2 · 1 / 2) + 2) + 5 = 13 / 2.
    Without an activation all of B goes on. With ReLU z_k is N(1, 2²), and S z_k + B is N(8, 3²).
    """
    norm = nn.BatchNorm2d(2, eps=0)
    act = nn.ReLU() if bends else nn.Identity()
    network = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), norm, act, nn.Conv2d(2, 2, 1), nn.Flatten()).eval()
    with torch.no_grad():
        network[0].weight[:, :, 0, 0] = torch.tensor([[3.0, 4, 0], [6, 8, 0]])
        norm.weight[:], norm.bias[:] = torch.tensor([2.0, 3]), torch.tensor([1.0, 5])
        norm.running_mean[:], norm.running_var[:] = torch.tensor([1.0, -2]), torch.tensor([4.0, 16])
        network[3].weight[:, :, 0, 0] = torch.tensor([[10.0, 1], [20, -4]])
        network[3].bias[:] = torch.tensor([0.5, 0.25])
    graph = build_graph(network, torch.zeros(1, 3, 1, 1))
    smaller = Repairs("merge", network, graph, IMAGES[:, :, :1, :1]).cut(np.array([True, False]))
    assert smaller[3].weight.flatten().tolist() == pytest.approx([10 + 1.5, 20 - 6])

    def rectified(mean: float, deviation: float) -> float:
        at = mean / deviation
        below = 0.5 * math.erfc(at / math.sqrt(2))
        return mean * (1 - below) + deviation * math.exp(-at * at / 2) / math.sqrt(2 * math.pi)

    constant = rectified(1.5 * 1 + 6.5, 1.5 * 2) - 1.5 * rectified(1, 2) if bends else 6.5
    assert smaller[3].bias.tolist() == pytest.approx([0.5 + constant, 0.25 - 4 * constant], rel=1e-5)


def test_the_bias_may_speak_for_another_filter() -> None:
    """Filter 2 is nearer to 0 in direction, but it is all but 1, of which it differs in no bias."""
    network = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3, eps=0), nn.ReLU(), *head(3)).eval()
    with torch.no_grad():
        network[0].weight[:, :, 0, 0] = torch.tensor([[1.0, 0, 0], [1, 0.1, 0], [1, 0, 0]])
        network[1].bias[0] = 4.0
        network[5].weight[:] = torch.tensor([[0.0, 0, 1]] * 4)
    kept = np.array([True, True, False])
    for settings, speaks in (("", [0, 1]), (":share=1", [1, 0])):
        smaller = Repairs(f"merge{settings}", network, traced(network), IMAGES).cut(kept)
        assert (smaller[5].weight[0] > 0.5).tolist() == [bool(one) for one in speaks]


def test_filters_that_nobody_resembles_are_left_alone() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.ReLU(), *head(3)).eval()
    with torch.no_grad():
        network[0].weight[:, :, 0, 0] = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0.05, 1, 0]])
    for gone in (1, 2):
        graph, kept = traced(network), np.arange(3) != gone
        smaller, plain = Repairs("merge", network, graph, IMAGES).cut(kept), prune(network, graph, kept)
        assert torch.equal(smaller[4].weight, plain[4].weight)


class Residual(nn.Module):
    """A sum of two layers, whose channels read and are read in several places."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.last = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 1), nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        given = self.one(images).relu()
        return self.last((given + self.two(given)).relu().mean((2, 3)))


def gelu(act: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3), act, nn.Conv2d(6, 5, 3), *head(5))


@pytest.mark.parametrize(
    "network",
    [
        Residual(),
        gelu(nn.GELU()),
        gelu(nn.ReLU6()),
        gelu(nn.Sigmoid()),
        gelu(nn.InstanceNorm2d(6)),
        gelu(nn.PReLU(6)),
        gelu(nn.Conv2d(6, 6, 1, groups=6)),
        gelu(nn.Softmax(1)),
    ],
    ids=lambda network: type(network).__name__ + type(getattr(network, "1", None)).__name__,
)
def test_where_channels_do_not_go_straight_nothing_changes(network: nn.Module) -> None:
    torch.manual_seed(3)
    if isinstance(act := getattr(network, "1", None), nn.PReLU):
        act.weight.data.uniform_(0.1, 0.9)
    graph = traced(network.eval())
    kept = without(graph, graph.groups[0].name, 2)
    smaller, plain = Repairs("merge", network, graph, IMAGES).cut(kept), prune(network, graph, kept)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(smaller.state_dict()[name], tensor), name


def test_the_dense_network_stays_as_it_was() -> None:
    network = NETWORKS["batch-norm"]().eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    graph = traced(network)
    Repairs("merge,bias,reconstruct,bn", network, graph, IMAGES).cut(without(graph, "0", 1, 3))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())


@pytest.mark.parametrize("settings", ["threshold=2", "share=-0.5"])
def test_settings_that_cannot_be(settings: str) -> None:
    with pytest.raises(UserError, match="expected numbers from 0 to 1"):
        Repairs(f"merge:{settings}", nn.Identity(), traced(NETWORKS["vectors"]()), IMAGES)
