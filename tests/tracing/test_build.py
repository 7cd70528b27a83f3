"""Groups of small networks whose coupling is known by construction."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlprune.errors import UserError
from rlprune.graph.structure import WHOLE, Graph
from rlprune.tracing.build import build_graph

Group = tuple[str, int, tuple[str, ...], tuple[str, ...]]
IMAGE = torch.zeros(1, 3, 8, 8)


class Net(nn.Module):
    """Layers by name, and what happens to an image."""

    def __init__(self, forward: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def conv(inputs: int, outputs: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups)


def groups(graph: Graph) -> list[Group]:
    return [(group.name, group.channels, group.producers, group.consumers) for group in graph.groups]


def slots(graph: Graph, layer: str, side: str) -> list[int]:
    return next(axis.slots.tolist() for axis in graph.axes if (axis.layer, axis.side) == (layer, side))


def chain(**norm: bool) -> Any:
    return Net(
        lambda net, x: net.last(net.two(net.norm(net.one(x)).relu()).mean((2, 3))),
        one=conv(3, 4),
        norm=nn.BatchNorm2d(4, **norm),
        two=conv(4, 5),
        last=nn.Linear(5, 2),
    )


@pytest.mark.parametrize("norm", [{}, {"affine": False}, {"track_running_stats": False}])
def test_chain(norm: dict[str, bool]) -> None:
    graph = build_graph(chain(**norm), IMAGE)
    assert groups(graph) == [("one", 4, ("one", "norm"), ("two",)), ("two", 5, ("two",), ("last",))]
    assert slots(graph, "norm", "out") == slots(graph, "two", "in") == [0, 1, 2, 3]
    assert slots(graph, "last", "in") == [4, 5, 6, 7, 8]
    assert [group.start for group in graph.groups] == [0, 4]
    assert graph.layers == {"one": 64, "two": 64, "last": 1}
    assert graph.refused == {"last": "its channels are the network's output"}


def test_tensors_of_a_chain() -> None:
    graph = build_graph(chain(), IMAGE)
    sides = {
        tensor.name: [None if axis is None else (graph.axes[axis].layer, graph.axes[axis].side) for axis in tensor.axes]
        for tensor in graph.tensors
    }
    norm = {f"norm.{leaf}": [("norm", "out")] for leaf in ("weight", "bias", "running_mean", "running_var")}
    assert sides == {
        "one.weight": [("one", "out"), None, None, None],
        "one.bias": [("one", "out")],
        **norm,
        "norm.num_batches_tracked": [],
        "two.weight": [("two", "out"), ("two", "in"), None, None],
        "two.bias": [("two", "out")],
        "last.weight": [None, ("last", "in")],
        "last.bias": [None],
    }
    facts = {tensor.name: (tensor.shape, tensor.parameter, tensor.positions) for tensor in graph.tensors}
    assert facts["two.weight"] == ((5, 4, 3, 3), True, 64)
    assert facts["two.bias"] == ((5,), True, 0)
    assert facts["norm.running_var"] == ((4,), False, 0)


def test_residual_sum_ties_its_terms() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.one(x)
        return net.last((x + net.three(net.two(x).relu())).mean((2, 3)))

    graph = build_graph(
        Net(forward, one=conv(3, 4), two=conv(4, 6), three=conv(6, 4), last=nn.Linear(4, 2)), torch.zeros(1, 3, 8, 8)
    )
    assert groups(graph) == [
        ("one", 4, ("one", "three"), ("two", "last")),
        ("two", 6, ("two",), ("three",)),
    ]
    assert slots(graph, "three", "out") == slots(graph, "last", "in") == [0, 1, 2, 3]
    assert slots(graph, "three", "in") == [4, 5, 6, 7, 8, 9]


def test_the_first_call_names_a_group_and_orders_it() -> None:
    """Whatever the order in which the layers were made."""
    net = Net(lambda net, x: net.a((net.c(x) + net.b(x)).mean((2, 3))), a=nn.Linear(4, 2), b=conv(3, 4), c=conv(3, 4))
    assert groups(build_graph(net, IMAGE)) == [("c", 4, ("c", "b"), ("a",))]


def test_concatenation_keeps_groups_apart() -> None:
    net = Net(
        lambda net, x: net.last(net.join(torch.cat([net.one(x), net.two(x)], 1)).mean((2, 3))),
        one=conv(3, 2),
        two=conv(3, 3),
        join=conv(5, 4),
        last=nn.Linear(4, 2),
    )
    graph = build_graph(net, IMAGE)
    assert groups(graph)[:2] == [("one", 2, ("one",), ("join",)), ("two", 3, ("two",), ("join",))]
    assert slots(graph, "join", "in") == [0, 1, 2, 3, 4]


def test_part_of_an_axis_may_belong_to_no_group() -> None:
    net = Net(
        lambda net, x: net.last(net.join(torch.cat([x + net.one(x), net.two(x)], 1)).mean((2, 3))),
        one=conv(3, 3),
        two=conv(3, 3),
        join=conv(6, 4),
        last=nn.Linear(4, 2),
    )
    graph = build_graph(net, IMAGE)
    assert [group.name for group in graph.groups] == ["two", "join"]
    assert slots(graph, "join", "in") == [WHOLE, WHOLE, WHOLE, 0, 1, 2]


def test_channels_joined_with_themselves_are_read_twice() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.one(x)
        return net.last(net.join(torch.cat([x, x], 1)).mean((2, 3)))

    graph = build_graph(Net(forward, one=conv(3, 2), join=conv(4, 3), last=nn.Linear(3, 2)), IMAGE)
    assert slots(graph, "join", "in") == [0, 1, 0, 1]


def test_depthwise_separable() -> None:
    net = Net(
        lambda net, x: net.last(net.point(net.depth(net.one(x))).mean((2, 3))),
        one=conv(3, 4),
        depth=conv(4, 4, groups=4),
        point=nn.Conv2d(4, 5, 1),
        last=nn.Linear(5, 2),
    )
    graph = build_graph(net, IMAGE)
    assert groups(graph)[0] == ("one", 4, ("one", "depth"), ("point",))
    depth = next(tensor for tensor in graph.tensors if tensor.name == "depth.weight")
    assert depth.axes[1:] == (None, None, None)


def test_flatten_gives_a_channel_all_its_positions() -> None:
    net = Net(lambda net, x: net.last(net.one(x).flatten(1)), one=conv(3, 2), last=nn.Linear(8, 2))
    graph = build_graph(net, torch.zeros(1, 3, 2, 2))
    assert slots(graph, "last", "in") == [0, 0, 0, 0, 1, 1, 1, 1]


def test_two_branches_read_the_same_channels() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.one(x)
        return net.last(net.two(x).mean((2, 3))) + net.side(x.mean((2, 3)))

    net = Net(forward, one=conv(3, 4), two=conv(4, 3), side=nn.Linear(4, 2), last=nn.Linear(3, 2))
    graph = build_graph(net, IMAGE)
    assert groups(graph) == [("one", 4, ("one",), ("two", "side")), ("two", 3, ("two",), ("last",))]
    assert set(graph.refused) == {"last", "side"}


def test_a_layer_that_is_called_twice() -> None:
    """Its outputs are its inputs; under a second name it is the same layer."""
    twice = conv(4, 4)
    net = Net(
        lambda net, x: net.last(net.again(net.two(net.one(x))).mean((2, 3))),
        one=conv(3, 4),
        two=twice,
        again=twice,
        last=nn.Linear(4, 2),
    )
    graph = build_graph(net, IMAGE)
    assert groups(graph) == [("one", 4, ("one", "two"), ("two", "last"))]
    assert graph.layers["two"] == 128
    tensors = {tensor.name: tensor for tensor in graph.tensors}
    assert tensors["again.weight"].axes == tensors["two.weight"].axes != (None,) * 4
    assert [tensors[f"{name}.weight"].parameter for name in ("two", "again")] == [True, False]


def test_tokens_are_positions() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        return net.last(net.two(net.one(net.cut(x).flatten(2).transpose(1, 2)).relu()).mean(1))

    net = Net(forward, cut=nn.Conv2d(3, 4, 4, 4), one=nn.Linear(4, 6), two=nn.Linear(6, 5), last=nn.Linear(5, 2))
    graph = build_graph(net, IMAGE)
    assert [group.name for group in graph.groups] == ["cut", "one", "two"]
    assert graph.layers == {"cut": 4, "one": 4, "two": 4, "last": 1}


def test_the_network_is_left_as_it_was() -> None:
    net = chain()
    net.norm.eval()
    net.two.weight.requires_grad_(False)
    before, modes = copy.deepcopy(net.state_dict()), [part.training for part in net.modules()]
    build_graph(net, torch.randn(1, 3, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [part.training for part in net.modules()] == modes
    assert [name for name, parameter in net.named_parameters() if not parameter.requires_grad] == ["two.weight"]
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(part._forward_hooks for part in net.modules())


def test_weights_do_not_matter() -> None:
    net = chain()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert len(build_graph(net, IMAGE).groups) == 2


def test_nothing_to_prune() -> None:
    with pytest.raises(UserError, match=r"no channels .* can be pruned \(last: its channels are the network's output"):
        build_graph(Net(lambda net, x: net.last(x.mean((2, 3))), last=nn.Linear(3, 2)), IMAGE)
    with pytest.raises(UserError, match="it has no conv or linear layers"):
        build_graph(Net(lambda net, x: x.mean((2, 3))), IMAGE)


def test_an_image_that_the_network_cannot_take() -> None:
    net = Net(lambda net, x: net.last(net.one(x).flatten(1)), one=conv(3, 2), last=nn.Linear(8, 2))
    with pytest.raises(UserError, match=r"does not run on an image of shape \(3, 8, 8\)"):
        build_graph(net, IMAGE)
