"""Which residual blocks are found, and what remains of each."""

from typing import Any

import pytest
import torch
from residual import EXAMPLE, Block, attention, basic, convnext, inverted, network
from torch import Tensor, nn
from torch.nn import functional as F

from rlprune.graph.structure import Graph
from rlprune.models.registry import build_model
from rlprune.tracing.build import build_graph
from rlprune.tracing.selection import Choice


def found(graph: Graph) -> dict[str, tuple[list[str], str]]:
    names = [group.name for group in graph.groups]
    return {block.name: ([names[number] for number in block.groups], block.remains) for block in graph.blocks}


def test_blocks_of_four_kinds_and_what_remains() -> None:
    net = network(basic(), inverted(), convnext(), attention(), basic(act=nn.LeakyReLU(0.2)))
    assert found(build_graph(net, EXAMPLE)) == {
        "1.0": (["1.0.conv1"], "act"),
        "1.1": (["1.1.expand", "1.1.squeeze"], ""),
        "1.2": (["1.2.expand"], ""),
        "1.3": (["1.3.query", "1.3.value", "1.3.expand"], ""),
        "1.4": (["1.4.conv1"], "act"),
    }


@pytest.mark.parametrize(
    ("name", "expected", "remains"),
    [
        # Three stages; a block that halves the resolution is none.
        ("resnet20", 7, "relu"),
        # Stages of 1, 2, 3, 4, 3, 3 and 1 blocks, of which every first one changes the channels or the resolution.
        ("mobilenetv2", 10, ""),
        ("vgg16", 0, None),
        ("mcifarnet", 0, None),
        # The classifier's features are 512 wide in the last stage only: 2 + 1 + 1 + 1.
        ("torchvision/resnet18", 5, "relu"),
        ("torchvision/mobilenet_v2", 10, ""),
        ("torchvision/densenet121", 0, None),
        ("timm/convnext_atto", 12, ""),
        ("timm/efficientnet_b0", 9, ""),
    ],
)
def test_blocks_of_known_networks(name: str, expected: int, remains: str | None) -> None:
    graph = build_graph(build_model(name, classes=4, image_size=32).eval(), torch.zeros(1, 3, 32, 32))
    assert len(graph.blocks) == expected
    assert {block.remains for block in graph.blocks} == ({remains} if expected else set())
    for block in graph.blocks:
        for number in block.groups:
            layers = (*graph.groups[number].producers, *graph.groups[number].consumers)
            assert all(layer.startswith(f"{block.name}.") for layer in layers)


def test_a_function_after_the_sum_remains_as_a_module() -> None:
    def forward(block: Any, x: Tensor) -> Tensor:
        return F.hardswish(x + block.conv2(F.relu(block.conv1(x))))

    block = Block(forward, conv1=nn.Conv2d(8, 6, 1), conv2=nn.Conv2d(6, 8, 1))
    assert found(build_graph(network(block), EXAMPLE)) == {"1.0": (["1.0.conv1"], "nn.Hardswish")}


def norm_after(block: Any, x: Tensor) -> Tensor:
    return block.norm(x + block.conv2(block.conv1(x).relu()))


def gated(block: Any, x: Tensor) -> Tensor:
    return x * block.conv2(block.conv1(x).relu()).sigmoid()


def doubled(block: Any, x: Tensor) -> Tensor:
    return 2 * x + block.conv2(block.conv1(x).relu())


def plain(block: Any, x: Tensor) -> Tensor:
    return block.conv2(block.conv1(x).relu())


@pytest.mark.parametrize("forward", [norm_after, gated, doubled, plain])
def test_what_leaves_more_than_the_skip_connection_is_no_block(forward: Any) -> None:
    block = Block(forward, conv1=nn.Conv2d(8, 6, 1), conv2=nn.Conv2d(6, 8, 1), norm=nn.BatchNorm2d(8))
    nn.init.normal_(block.norm.bias)
    assert build_graph(network(block), EXAMPLE).blocks == ()


def test_a_block_that_runs_twice_is_none() -> None:
    block = basic()
    assert build_graph(network(block, block), EXAMPLE).blocks == ()


def test_blocks_that_share_a_weight_are_none() -> None:
    one, other = basic(), basic()
    other.conv1.weight = one.conv1.weight
    assert build_graph(network(one, other), EXAMPLE).blocks == ()


class Outside(nn.Module):
    """Somebody who asks for a part of the first of two blocks."""

    def __init__(self, ask: Any) -> None:
        super().__init__()
        self.net, self.ask = network(basic(), basic()), ask
        self.held = [self.net[1][0]]

    def forward(self, x: Tensor) -> Tensor:
        return self.ask(self, x)


@pytest.mark.parametrize(
    "ask",
    [
        lambda whole, x: whole.net(x) + 0 * whole.net[1][0].conv1.weight.sum(),
        lambda whole, x: whole.net[2:](whole.net[1][1](whole.held[0](whole.net[0](x)))),
    ],
)
def test_a_block_that_is_asked_for_by_name_or_held_elsewhere_stays(ask: Any) -> None:
    assert [block.name for block in build_graph(Outside(ask).eval(), EXAMPLE).blocks] == ["net.1.1"]


def test_what_may_not_be_cut_keeps_its_block() -> None:
    net = network(basic(), basic(), basic())
    kept = build_graph(net, EXAMPLE, Choice(exclude=("1.1.conv2",)))
    assert [block.name for block in kept.blocks] == ["1.0", "1.2"]
    only = build_graph(net, EXAMPLE, Choice(include=("1.1",)))
    assert [block.name for block in only.blocks] == ["1.1"]


def test_of_nested_blocks_the_smallest() -> None:
    def around(block: Any, x: Tensor) -> Tensor:
        return x + block.conv(block.inner(x))

    outer = Block(around, inner=basic(), conv=nn.Conv2d(8, 8, 1))
    assert [block.name for block in build_graph(network(outer), EXAMPLE).blocks] == ["1.0.inner"]


def test_a_block_that_changes_its_input_in_place() -> None:
    def forward(block: Any, x: Tensor) -> Tensor:
        y = F.relu(x, inplace=True)
        x += block.conv2(block.conv1(y).relu())
        return x

    block = Block(forward, conv1=nn.Conv2d(8, 6, 1), conv2=nn.Conv2d(6, 8, 1))
    assert found(build_graph(network(block), EXAMPLE)) == {"1.0": (["1.0.conv1"], "nn.ReLU")}


def test_tracing_leaves_the_network_as_it_was() -> None:
    net = network(basic(), inverted()).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    build_graph(net, EXAMPLE)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(part.training for part in net.modules())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())
