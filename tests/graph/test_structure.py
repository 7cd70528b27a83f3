"""The structure of a network, dense and cut."""

import numpy as np
import pytest
import torch
from gated import MODELS, PIXELS, network
from torch import nn

from rlprune.graph.structure import Graph, Group
from rlprune.graph.surgery import prune
from rlprune.models.registry import build_model
from rlprune.tracing.build import build_graph
from rlprune.utils.modules import named_tensors

EXAMPLE = torch.zeros(1, 3, PIXELS, PIXELS)


def test_sizes_are_in_the_order_of_the_groups() -> None:
    groups = (Group("a", 8, 0, ("a",), ("b",)), Group("b", 3, 8, ("b",), ()))
    assert Graph(groups, (), (), (), {}, {}).sizes.tolist() == [8, 3]


@pytest.mark.parametrize("name", [*MODELS, "torchvision/shufflenet_v2_x0_5", "torchvision/mobilenet_v3_small"])
def test_what_is_left_is_what_tracing_finds_in_the_cut_network(name: str) -> None:
    dense = network(name) if name in MODELS else build_model(name, classes=4, image_size=PIXELS).eval()
    graph = build_graph(dense, EXAMPLE)
    rng = np.random.default_rng(0)
    kept = rng.random(sum(graph.sizes)) < 0.6
    for mine in graph.split(kept):
        # Two at least: one channel is traced otherwise.
        mine[:2] = True
    cut, traced = graph.cut(kept), build_graph(prune(dense, graph, kept).eval(), EXAMPLE)
    assert cut.groups == traced.groups
    assert cut.tensors == traced.tensors
    assert cut.layers == traced.layers
    for ours, theirs in zip((*cut.axes, *cut.products), (*traced.axes, *traced.products), strict=True):
        assert ours.slots.tolist() == theirs.slots.tolist()


def test_a_grouped_convolution_is_cut_as_before() -> None:
    """Of few groups all become narrower, of many some go; which it is does not change with the number that is left."""
    net = nn.Sequential(nn.Conv2d(3, 24, 1), nn.Conv2d(24, 24, 3, groups=4), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                        nn.Linear(24, 3)).eval()  # fmt: skip
    graph = build_graph(net, EXAMPLE)
    kept = np.ones(sum(graph.sizes), dtype=bool)
    for mine in graph.split(kept):
        mine[2:] = False
    cut = graph.cut(kept)
    smaller = prune(net, graph, kept)
    assert [group.producers for group in cut.groups] == [group.producers for group in graph.groups]
    assert {tensor.name: tensor.shape for tensor in cut.tensors} == {
        name: tuple(tensor.shape) for name, tensor in named_tensors(smaller).items()
    }


def test_a_depthwise_convolution_of_one_channel_stays_one() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 1)).eval()
    graph = build_graph(nn.Sequential(net, nn.Flatten(), nn.Linear(2 * 30 * 30, 3)).eval(), EXAMPLE)
    kept = np.ones(sum(graph.sizes), dtype=bool)
    kept[: graph.groups[0].channels] = [False, False, True, False]
    cut = graph.cut(kept)
    assert cut.groups[0].producers == ("0.0", "0.1")
    assert [(group.channels, group.start) for group in cut.groups] == [(1, 0), (2, 1)]


def test_who_reads_whom() -> None:
    """conv1 → (a → b) summed with conv1 → c: conv1 and b are one group, which is read to make a and c."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.a, self.b = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 1), nn.Conv2d(4, 6, 1)
            self.c, self.depthwise = nn.Conv2d(6, 5, 1), nn.Conv2d(5, 5, 3, groups=5)
            self.last = nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            x = x + self.b(self.a(x).relu())
            return self.last(self.depthwise(self.c(x)).mean(dim=(2, 3)))

    graph = build_graph(Net().eval(), EXAMPLE)
    assert [group.name for group in graph.groups] == ["first", "a", "c"]
    assert graph.reads.astype(int).tolist() == [[0, 1, 0], [1, 0, 0], [1, 0, 0]]
