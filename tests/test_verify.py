"""Structure that tracing gets wrong is found out and refused; structure that it gets right never is."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rlprune.trace import MISREAD, build_graph


class Net(nn.Module):
    """Two convolutions with something between them; the second one's channels are plain."""

    def __init__(self, middle: Callable[[Tensor, Tensor], Tensor], first: int, second: int) -> None:
        super().__init__()
        self.middle = middle
        self.first = nn.Conv2d(3, first, 3, padding=1)
        self.second, self.last = nn.Conv2d(second, 6, 3, padding=1), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.middle(self.first(x), x)).mean((2, 3)))


def shuffle(y: Tensor, _: Tensor) -> Tensor:
    images, channels, height, width = y.shape
    return y.view(images, 2, channels // 2, height, width).transpose(1, 2).reshape(images, channels, height, width)


@pytest.mark.parametrize(
    ("middle", "first", "second"),
    [
        (shuffle, 8, 8),
        (lambda y, x: torch.cat([x, y], 1), 8, 11),
        (lambda y, x: x + y, 3, 3),
        (lambda y, x: y.softmax(1), 8, 8),
        (lambda y, x: nn.functional.normalize(y), 8, 8),
        (lambda y, x: y.view(-1, 8, 8, 8), 8, 8),
        (lambda y, x: y.flip(1), 8, 8),
    ],
    ids=["shuffle", "cat-input", "add-input", "softmax", "normalise", "written-number", "flip"],
)
def test_misread_channels_are_refused(middle: Callable[[Tensor, Tensor], Tensor], first: int, second: int) -> None:
    graph = build_graph(Net(middle, first, second), torch.zeros(1, 3, 8, 8))
    assert [group.name for group in graph.groups] == ["second"]
    assert graph.refused["first"] == MISREAD


def test_order_of_flattening() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(64, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.second(self.first(x)).permute(0, 2, 3, 1).flatten(1))

    graph = build_graph(Last(), torch.zeros(1, 3, 8, 8))
    assert [group.name for group in graph.groups] == ["first"]
    assert graph.refused["second"] == MISREAD


def test_sound_networks_pass(network: nn.Module) -> None:
    graph = build_graph(network, torch.zeros(1, 3, 32, 32))
    assert list(graph.refused.values()) == ["its channels are the network's output"]
