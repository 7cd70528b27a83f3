"""Structure that tracing gets wrong is found out and refused; structure that it gets right never is."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlprune.tracing.build import build_graph
from rlprune.tracing.verify import MISREAD, _counts


class Net(nn.Module):
    """Two convolutions with something between them; the second one's channels are plain."""

    def __init__(self, middle: Callable[[Tensor, Tensor], Tensor], first: int, second: int) -> None:
        super().__init__()
        self.middle = middle
        self.first = nn.Conv2d(3, first, 3, padding=1)
        self.second, self.last = nn.Conv2d(second, 6, 3, padding=1), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.middle(self.first(x), x)).mean((2, 3)))


@pytest.mark.parametrize(
    ("middle", "first", "second"),
    [
        (lambda y, x: y.view(-1, 8, 8, 8), 8, 8),
        (lambda y, x: y[:, :, :, :] if y.shape[1] == 8 else y.flip(1), 8, 8),
        (lambda y, x: torch.cat(y.split([4] * (y.shape[1] // 4), 1)[:2], 1), 8, 8),
        (lambda y, x: y.expand(-1, 8, -1, -1), 8, 8),
    ],
    ids=["view", "branch", "split", "expand"],
)
def test_numbers_in_the_code_are_found(middle: Callable[[Tensor, Tensor], Tensor], first: int, second: int) -> None:
    graph = build_graph(Net(middle, first, second), torch.zeros(1, 3, 8, 8))
    assert [group.name for group in graph.groups] == ["second"]
    assert graph.refused["first"] == MISREAD


def test_blocks_of_one_kind_are_refused_together_and_no_others() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.fixed = nn.Conv2d(6, 8, 1), nn.Conv2d(8, 6, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.fixed(self.wide(x)).view(-1, 6, 8, 8)

    net = nn.Sequential(nn.Conv2d(3, 6, 1), *(Block() for _ in range(5)), nn.Flatten(), nn.Linear(6 * 64, 2))
    graph = build_graph(net, torch.zeros(1, 3, 8, 8))
    assert [group.name for group in graph.groups] == ["0", *(f"{block}.wide" for block in range(1, 6))]
    assert {layer for layer, why in graph.refused.items() if why == MISREAD} == {f"{b}.fixed" for b in range(1, 6)}


def test_groups_of_one_size_lose_different_numbers() -> None:
    """Where tracing has taken apart what belongs together, it no longer fits."""
    assert _counts(np.array([4, 4, 9, 4, 4, 2, 2])) == [2, 3, 4, 1, 2, 1, 1]


def test_sound_networks_pass(network: nn.Module) -> None:
    graph = build_graph(network, torch.zeros(1, 3, 32, 32))
    assert list(graph.refused.values()) == ["its channels are the network's output"]
