"""What a user says of a network's groups."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlprune.cost.exact import build_cost
from rlprune.errors import UserError
from rlprune.graph.structure import Graph
from rlprune.graph.surgery import prune
from rlprune.tracing.build import build_graph
from rlprune.tracing.selection import Choice, parse_choice


class Net(nn.Module):
    """Two blocks, between which the values of every row are multiplied up, which cannot be followed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.blocks = nn.ModuleList([nn.Conv2d(8, 6, 1), nn.Conv2d(6, 4, 1)])
        self.last = nn.Linear(4 * 64, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).cumprod(3)
        for block in self.blocks:
            x = block(x).relu()
        return self.last(x.flatten(1))


def traced(**settings: str) -> Graph:
    return build_graph(Net(), torch.zeros(1, 3, 8, 8), parse_choice(settings))


def names(graph: Graph) -> list[str]:
    return [group.name for group in graph.groups]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["blocks.0", "blocks.1"]),
        ({"exclude": "blocks.0"}, ["blocks.1"]),
        ({"exclude": "stem, blocks.[1-9]"}, ["blocks.0"]),
        ({"include": "*.1"}, ["blocks.1"]),
        ({"include": "blocks"}, ["blocks.0", "blocks.1"]),
        ({"include": "blocks.*", "exclude": "*.0"}, ["blocks.1"]),
        ({"include": "stem,blocks.1", "group": "stem,norm>blocks.0"}, ["stem", "blocks.1"]),
    ],
)
def test_patterns(settings: dict[str, str], expected: list[str]) -> None:
    assert names(traced(**settings)) == expected


def test_why_a_group_is_left_out() -> None:
    assert traced(exclude="blocks.0").refused["blocks.0"] == "it is excluded by 'blocks.0'"
    assert traced(include="blocks.0").refused["blocks.1"] == "it is not included"


def test_a_tied_layer_excludes_its_group_and_includes_it() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 5, 1)
            self.head = nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(x)
            return self.head(self.last(x + self.two(x)).mean((2, 3)))

    image = torch.zeros(1, 3, 4, 4)
    assert names(build_graph(Residual(), image, Choice(exclude=("two",)))) == ["last"]
    assert names(build_graph(Residual(), image, Choice(include=("two",)))) == ["one"]


def test_a_declared_group_is_cut_with_all_that_belongs_to_it() -> None:
    graph = traced(group="stem, norm > blocks.0")
    assert names(graph) == ["stem", "blocks.0", "blocks.1"]
    net = Net().eval()
    kept = np.ones(18, dtype=bool)
    kept[[1, 2, 7]] = False
    smaller = prune(net, graph, kept)
    picked = torch.tensor([0, 3, 4, 5, 6])
    assert torch.equal(smaller.norm.running_mean, net.norm.running_mean[picked])
    assert torch.equal(smaller.blocks[0].weight, net.blocks[0].weight[:, picked])
    assert smaller(torch.zeros(2, 3, 8, 8)).shape == (2, 2)
    # 3 x 3 x 3 per stem output and 6 outputs of 1 x 1 that read it, at 64 positions.
    dense, cut = build_cost(graph)(np.array([[8, 6, 4], [5, 6, 4]]))[:, 0]
    assert dense - cut == 3 * (27 + 6) * 64


def test_channels_that_are_flattened_before_a_declared_reader() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.three = nn.Conv2d(3, 4, 1), nn.Linear(4 * 9, 5), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.three(self.two(self.one(x).cumprod(3).flatten(1)))

    graph = build_graph(Flat(), torch.zeros(1, 3, 3, 3), parse_choice({"group": "one > two"}))
    axis = next(axis for axis in graph.axes if (axis.layer, axis.side) == ("two", "in"))
    assert axis.slots.tolist() == np.repeat(np.arange(4), 9).tolist()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"exclude": "blocs.*"}, r"unknown layer in --exclude 'blocs\.\*'.*known: blocks\.0"),
        ({"include": "block"}, "unknown layer in --include 'block'"),
        ({"group": "stem norm"}, "cannot read the group 'stem norm': write the layers that make"),
        ({"group": "> stem"}, "cannot read the group"),
        ({"group": "stem,nrm > blocks.0"}, "unknown layer 'nrm': did you mean 'norm'"),
        ({"group": "stem > norm"}, "'norm' has no weight that reads channels"),
        ({"group": "stem,norm > blocks.1"}, "does not fit: stem makes 8 channels and blocks.1 has 6"),
        ({"group": "blocks.0 > last"}, "does not fit: blocks.0 makes 6 channels and last has 256"),
        ({"group": "blocks.1 > blocks.1"}, "does not fit"),
        ({"group": "stem > blocks.0"}, "'stem' cannot be cut: the network does not run without some of its channels"),
    ],
)
def test_what_does_not_fit(settings: Mapping[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        traced(**settings)


def test_a_reader_that_is_left_out_is_named() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.three = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1), nn.Conv2d(4, 5, 1)
            self.last = nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(x)
            return self.last((self.two(x) + self.three(x)).mean((2, 3)))

    with pytest.raises(UserError, match="not complete: 'three' has some of its channels"):
        build_graph(Two(), torch.zeros(1, 3, 4, 4), parse_choice({"group": "one > two"}))
