"""Constant channels and means that are worked out by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlprune.evaluation.sliced import recalibrate
from rlprune.graph.surgery import prune
from rlprune.methods.recovery.base import Repairs
from rlprune.tracing.build import build_graph

IMAGES = torch.randn(7, 3, 6, 6, generator=torch.Generator().manual_seed(4))


def head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4)]


def constant(*between: nn.Module, then: nn.Module) -> nn.Sequential:
    """The second and third channels of the first layer are 1.5 and 0.25 wherever an image is."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 5, 3), *between, then, nn.ReLU(), *head(4)).eval()
    with torch.no_grad():
        network[0].weight[1:3] = 0
        network[0].bias[1:3] = torch.tensor([1.5, 0.25])
    return network


def kept_of(network: nn.Module, *gone: int) -> tuple[object, np.ndarray]:
    graph = build_graph(network, torch.zeros(1, 3, 6, 6))
    kept = np.ones(int(graph.sizes.sum()), dtype=bool)
    kept[list(gone)] = False
    return graph, kept


@pytest.mark.parametrize("act", [nn.ReLU(), nn.GELU(), nn.Sigmoid()])
@pytest.mark.parametrize("bias", [True, False])
def test_constant_channels_are_given_back_exactly(act: nn.Module, bias: bool) -> None:
    """Behind any activation; in the bias, or in the mean of the batch norm that follows."""
    norms = [] if bias else [nn.BatchNorm2d(4)]
    network = constant(act, then=nn.Sequential(nn.Conv2d(5, 4, 3, bias=bias), *norms)).eval()
    graph, kept = kept_of(network, 1, 2)
    smaller = Repairs("bias", network, graph, IMAGES).cut(kept)
    with torch.no_grad():
        torch.testing.assert_close(smaller(IMAGES), network(IMAGES))
        assert (prune(network, graph, kept)(IMAGES) - network(IMAGES)).abs().max() > 1e-3
    assert (smaller[2][0].bias is not None) == bias


def test_the_mean_of_a_padded_convolution() -> None:
    """What the cut channel adds to the output is measured by a convolution of that channel alone."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3, stride=2, padding=1), *head(2)[:2]).eval()
    graph, kept = kept_of(network, 3)
    smaller = Repairs("bias", network, graph, IMAGES).cut(kept)
    with torch.no_grad():
        lost = nn.functional.conv2d(network[:2](IMAGES)[:, 3:], network[2].weight[:, 3:], stride=2, padding=1)
        torch.testing.assert_close(smaller[2].bias, network[2].bias + lost.mean((0, 2, 3)))
        torch.testing.assert_close(smaller(IMAGES).mean(0), network(IMAGES).mean(0))


def test_vectors_after_a_flattened_map() -> None:
    torch.manual_seed(2)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
    graph, kept = kept_of(network, 0, 2)
    smaller = Repairs("bias", network, graph, IMAGES).cut(kept)
    with torch.no_grad():
        lost = network[:2](IMAGES)[:, [0, 2]].mean(0).flatten()
        weights = network[3].weight.view(3, 4, 16)[:, [0, 2]].flatten(1)
        torch.testing.assert_close(smaller[3].bias, network[3].bias + weights @ lost)
        assert torch.equal(smaller[3].weight, prune(network, graph, kept)[3].weight)


def test_beside_recalibration_it_changes_nothing_before_a_batch_norm() -> None:
    network = constant(nn.ReLU(), then=nn.Sequential(nn.Conv2d(5, 4, 3, bias=False), nn.BatchNorm2d(4))).eval()
    graph, kept = kept_of(network, 1, 3)
    both, alone = (Repairs(text, network, graph, IMAGES).cut(kept) for text in ("bias,bn", "bn"))
    recalibrate(plain := prune(network, graph, kept), IMAGES)
    assert same(alone, plain)
    for name in ("weight", "running_mean", "running_var"):
        torch.testing.assert_close(getattr(both[2][1], name), getattr(plain[2][1], name))
    assert torch.equal(both[6].bias, plain[6].bias)


def test_where_no_constant_can_be_added_nothing_changes() -> None:
    network = constant(nn.ReLU(), then=nn.Conv2d(5, 4, 3, bias=False))
    graph, kept = kept_of(network, 1)
    smaller = Repairs("bias", network, graph, IMAGES).cut(kept)
    assert same(smaller, prune(network, graph, kept))


def test_what_merging_has_given_back_is_not_given_twice() -> None:
    """A channel twice as large as another: merged without loss, so that no constant is left."""
    network = constant(nn.ReLU(), then=nn.Conv2d(5, 4, 3))
    with torch.no_grad():
        network[0].weight[4], network[0].bias[4] = 2 * network[0].weight[3], 2 * network[0].bias[3]
    graph, kept = kept_of(network, 4)
    with torch.no_grad():
        torch.testing.assert_close(Repairs("bias,merge", network, graph, IMAGES).cut(kept)(IMAGES), network(IMAGES))


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(mine, theirs) for mine, theirs in pairs)


class Twice(nn.Module):
    """A layer that runs twice, and one whose weight is another's, too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 5, 1)
        self.tied, self.last = nn.Conv2d(5, 5, 1), nn.Linear(5, 4)
        self.tied.weight = self.again.weight

    def forward(self, images: Tensor) -> Tensor:
        given = self.again(self.again(self.first(images)).relu()).relu()
        return self.last(self.tied(given).mean((2, 3)))


@pytest.mark.parametrize("repair", ["bias", "reconstruct", "merge"])
def test_layers_that_run_twice_or_share_their_weights_are_left_alone(repair: str) -> None:
    network = Twice().eval()
    graph, kept = kept_of(network, 0)
    smaller, plain = Repairs(repair, network, graph, IMAGES).cut(kept), prune(network, graph, kept)
    for name in ("again", "tied"):
        assert same(smaller.get_submodule(name), plain.get_submodule(name))


class Rectified(nn.Conv2d):
    """What comes out is more than a convolution."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).relu()


class Windows(nn.Module):
    """A layer that reads four windows of every image, and one of somebody's own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.window = nn.Conv2d(3, 5, 3, padding=1), nn.Linear(5, 5)
        self.own, self.last = Rectified(5, 5, 1), nn.Linear(5, 4)

    def forward(self, images: Tensor) -> Tensor:
        given = self.first(images).relu().permute(0, 2, 3, 1)
        given = self.window(given.reshape(4 * len(images), -1, given.shape[-1])).relu()
        given = given.view(len(images), 6, 6, -1).permute(0, 3, 1, 2)
        return self.last(self.own(given).mean((2, 3)))


@pytest.mark.parametrize("repair", ["bias", "reconstruct", "merge"])
def test_layers_that_are_not_what_they_seem_are_left_alone(repair: str) -> None:
    network = Windows().eval()
    graph, kept = kept_of(network, 0, 6, 11)
    smaller, plain = Repairs(repair, network, graph, IMAGES).cut(kept), prune(network, graph, kept)
    for name in ("window", "own"):
        assert same(smaller.get_submodule(name), plain.get_submodule(name))
    assert same(smaller.last, plain.last) == (repair == "merge")
