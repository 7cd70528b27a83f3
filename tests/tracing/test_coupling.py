"""What one run of a network shows, against what is written down here by hand; and that the network is left alone."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hard_networks import IMAGE, VECTOR, Net, conv, only_in_training, weight
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from rlprune.graph.structure import WHOLE
from rlprune.graph.surgery import prune
from rlprune.tracing.build import build_graph
from rlprune.tracing.coupling import Coupling, Side, trace_coupling
from rlprune.tracing.tracer import COMPUTED, INPUT, OUTPUT
from rlprune.tracing.weight_rules import GROUPED


def letters(coupling: Coupling, *sides: Side) -> list[str]:
    """Channels along some sides as letters; a dash for what is never cut."""
    found = [coupling.axes[side].tolist() for side in sides]
    known = [channel for channel in dict.fromkeys(np.concatenate(found).tolist()) if channel]
    names = {channel: chr(ord("a") + number) for number, channel in enumerate(known)} | {0: "-"}
    return ["".join(names[channel] for channel in one) for one in found]


def chain() -> Net:
    return Net(
        lambda net, x: net.last(net.two(net.norm(net.one(x)).relu()).mean((2, 3))),
        two=conv(4, 5),
        one=conv(3, 4),
        norm=nn.BatchNorm2d(4),
        last=nn.Linear(5, 2),
    )


def test_a_chain() -> None:
    coupling = trace_coupling(chain(), IMAGE)
    sides = [
        ("one", "in"),
        ("one", "out"),
        ("norm", "out"),
        ("two", "in"),
        ("two", "out"),
        ("last", "in"),
        ("last", "out"),
    ]
    assert set(coupling.axes) == set(sides)
    assert letters(coupling, *sides) == ["---", "abcd", "abcd", "abcd", "efghi", "efghi", "--"]
    assert coupling.layers == ["one", "norm", "two", "last"]
    assert coupling.order == {"one": 0, "norm": 1, "two": 2, "last": 3}
    assert coupling.weights == {"one": "one.weight", "two": "two.weight", "last": "last.weight"}
    assert coupling.positions == {"one.weight": 64, "two.weight": 64, "last.weight": 1}
    assert coupling.products == []
    assert coupling.by_groups == frozenset()
    assert coupling.reasons == {"last": OUTPUT}
    assert not coupling.trains


def test_what_every_dimension_of_a_chains_tensors_follows() -> None:
    coupling = trace_coupling(chain(), IMAGE)
    assert coupling.follows == {
        "one.weight": (("one", "out"), ("one", "in"), None, None),
        "one.bias": (("one", "out"),),
        **{f"norm.{name}": (("norm", "out"),) for name in ("weight", "bias", "running_mean", "running_var")},
        "norm.num_batches_tracked": (),
        "two.weight": (("two", "out"), ("two", "in"), None, None),
        "two.bias": (("two", "out"),),
        "last.weight": (("last", "out"), ("last", "in")),
        "last.bias": (None,),
    }


def test_transposed_weights_follow_the_other_way_round() -> None:
    net = Net(
        lambda net, x: net.up(net.one(x)).mean((2, 3)) @ net.raw,
        one=conv(3, 4),
        up=nn.ConvTranspose2d(4, 5, 2),
        raw=weight(5, 2),
    )
    coupling = trace_coupling(net, IMAGE)
    assert coupling.follows["up.weight"] == (("up", "in"), ("up", "out"), None, None)
    assert coupling.follows["raw"] == (("raw", "in"), ("raw", "out"))
    assert letters(coupling, ("one", "out"), ("up", "in"), ("up", "out"), ("raw", "in")) == [
        "abcd",
        "abcd",
        "efghi",
        "efghi",
    ]
    assert coupling.layers == ["one", "up", "raw"]


def grouped(channels: int, outputs: int, groups: int) -> Net:
    return Net(
        lambda net, x: net.last(net.middle(net.one(x)).mean((2, 3))),
        one=conv(3, channels),
        middle=conv(channels, outputs, groups=groups),
        last=nn.Linear(outputs, 2),
    )


def test_whole_groups() -> None:
    coupling = trace_coupling(grouped(8, 12, 4), IMAGE)
    assert letters(coupling, ("one", "out"), ("middle", "out")) == ["aabbccdd", "aaabbbcccddd"]
    assert ("middle", "in") not in coupling.axes
    assert coupling.follows["middle.weight"] == (("middle", "out"), None, None, None)
    assert coupling.by_groups == {"middle.weight"}
    assert {text for channel in coupling.axes["one", "out"] for text in coupling.notes[channel]} == {
        "grouped convolution in middle"
    }


def test_folded_groups() -> None:
    coupling = trace_coupling(grouped(8, 12, 2), IMAGE)
    assert letters(coupling, ("one", "out"), ("middle", "in"), ("middle", "fold")) == ["abcdabcd", "abcdabcd", "abcd"]
    assert letters(coupling, ("middle", "out")) == ["abcdefabcdef"]
    assert coupling.follows["middle.weight"] == (("middle", "out"), ("middle", "fold"), None, None)
    assert coupling.by_groups == frozenset()


@pytest.mark.parametrize(("channels", "groups"), [(8, 4), (8, 2), (18, 3)])
def test_a_network_that_is_cut_is_traced_as_before(channels: int, groups: int) -> None:
    """Three of four groups of two would be cut otherwise, had it not been said how."""
    net = grouped(channels, 12, groups).eval()
    graph = build_graph(net, IMAGE)
    mask = np.ones(graph.sizes.sum(), dtype=bool)
    mask[[group.start for group in graph.groups]] = False
    before = trace_coupling(net, IMAGE)
    after = trace_coupling(prune(net, graph, mask), IMAGE, before.by_groups)
    assert after.by_groups == before.by_groups
    assert {side: len(axis) for side, axis in after.axes.items()} == {
        side: len(axis) - _gone(graph, mask, side) for side, axis in before.axes.items()
    }


def _gone(graph: Any, mask: np.ndarray, side: Side) -> int:
    return sum((~mask[axis.slots[axis.slots != WHOLE]]).sum() for axis in graph.axes if (axis.layer, axis.side) == side)


def test_layers_are_named_after_whom_their_parameters_belong_to() -> None:
    class Own(nn.Module):
        """Its kernel has a name of its own, its weight the usual one."""

        def __init__(self) -> None:
            super().__init__()
            self.kernel, self.weight, self.gain = weight(4, 4), weight(4, 4), weight(4)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(F.linear(x, self.kernel), self.weight) * self.gain

    net = Net(
        lambda net, x: F.linear(net.own(F.linear(x, net.weight)), net.last),
        own=Own(),
        weight=weight(4, 5),
        last=weight(2, 4),
    )
    coupling = trace_coupling(net, VECTOR)
    assert coupling.weights == {"weight": "weight", "own.kernel": "own.kernel", "own": "own.weight", "last": "last"}
    assert coupling.layers == ["weight", "own.kernel", "own", "own.gain", "last"]
    assert coupling.follows["own.gain"] == (("own.gain", "out"),)
    assert letters(coupling, ("own", "out"), ("own.gain", "out"), ("last", "in")) == ["abcd"] * 3


def test_hidden_buffers_follow_channels() -> None:
    net = chain()
    net.register_buffer("scale", torch.ones(4, 1, 1), persistent=False)
    net.register_buffer("table", torch.ones(3, 4), persistent=False)
    net.register_buffer("unused", torch.ones(4), persistent=False)
    net.run = lambda net, x: net.last(
        net.two(net.one(x) * net.scale + net.table.t().sum(1)[:, None, None]).mean((2, 3))
    )
    coupling = trace_coupling(net, IMAGE)
    assert coupling.follows["scale"] == (("scale", "out"), None, None)
    assert coupling.follows["table"] == (None, ("table", "out"))
    assert coupling.follows["unused"] == (None,)
    assert letters(coupling, ("one", "out"), ("scale", "out"), ("table", "out")) == ["abcd"] * 3


def test_a_parameter_under_two_names_follows_the_same() -> None:
    layer = conv(4, 4)
    net = Net(
        lambda net, x: net.last(net.b(net.one(x)).mean((2, 3))), one=conv(3, 4), a=layer, b=layer, last=nn.Linear(4, 2)
    )
    coupling = trace_coupling(net, IMAGE)
    assert coupling.follows["b.weight"] == coupling.follows["a.weight"] == (("a", "out"), ("a", "in"), None, None)
    assert coupling.follows["b.bias"] == coupling.follows["a.bias"] == (("a", "out"),)
    assert "b" not in coupling.layers


def test_a_parameter_whose_elements_change_along_two_dimensions_follows_nothing() -> None:
    net = Net(
        lambda net, x: net.two(net.one(x) * net.outer.norm()),
        one=nn.Linear(5, 4),
        two=nn.Linear(4, 2),
        outer=weight(3, 2),
    )
    assert trace_coupling(net, VECTOR).follows["outer"] == (None, None)


def test_an_empty_buffer_follows_nothing() -> None:
    net = Net(
        lambda net, x: net.two(torch.cat([net.one(x), net.empty.expand(1, 0)], 1)),
        one=nn.Linear(5, 4),
        two=nn.Linear(4, 2),
    )
    net.register_buffer("empty", torch.zeros(0))
    coupling = trace_coupling(net, VECTOR)
    assert coupling.follows["empty"] == (None,)
    assert letters(coupling, ("one", "out"), ("two", "in")) == ["abcd", "abcd"]


def test_two_norms_of_other_channels_have_sides_of_their_own() -> None:
    """A layer whose parameters are of different channels, as gains for two branches."""

    class Gains(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = weight(4), weight(4)

    net = Net(
        lambda net, x: net.three(net.one(x) * net.gains.weight) + net.four(net.two(x) * net.gains.bias),
        one=nn.Linear(5, 4),
        two=nn.Linear(5, 4),
        three=nn.Linear(4, 2),
        four=nn.Linear(4, 2),
        gains=Gains(),
    )
    coupling = trace_coupling(net, VECTOR)
    assert coupling.follows["gains.weight"] == (("gains", "out"),)
    assert coupling.follows["gains.bias"] == (("gains.bias", "out"),)
    assert letters(coupling, ("one", "out"), ("gains", "out")) == ["abcd", "abcd"]
    assert letters(coupling, ("two", "out"), ("gains.bias", "out")) == ["abcd", "abcd"]


def test_reasons() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.up(net.skip(x) + x)
        return net.last(net.computed(y).sort(1).values.mean((2, 3)))

    net = Net(
        forward,
        skip=conv(3, 3),
        up=nn.ConvTranspose2d(3, 6, 2, groups=3),
        computed=parametrizations.weight_norm(conv(6, 5)),
        last=nn.Linear(5, 2),
    )
    coupling = trace_coupling(net, IMAGE)
    assert coupling.reasons == {"skip": INPUT, "up": GROUPED, "computed": COMPUTED, "last": OUTPUT}
    # One product each, in which nothing is ever cut: 8 x 8 positions read and 9 x 9 made.
    works = [(labels.tolist(), times) for labels, times, _ in coupling.products]
    assert works == [([0], 3 * 64 * 2 * 4), ([0], 5 * 81 * 6 * 9)]


def test_an_auxiliary_head_is_seen_in_training_mode() -> None:
    net = only_in_training()
    coupling = trace_coupling(net, IMAGE)
    assert coupling.trains
    assert letters(coupling, ("one", "out"), ("two", "in"), ("aux", "in")) == ["abcdefgh"] * 3
    assert letters(coupling, ("aux", "out")) == ["---"]
    assert coupling.layers == ["one", "two", "last", "aux"]
    # It costs nothing in eval mode, and nobody calls the last one.
    assert coupling.positions == {"one.weight": 64, "two.weight": 64, "last.weight": 1}
    assert coupling.follows["spare.weight"] == (None,) * 4
    assert net.training


def test_who_wants_more_in_training_mode_is_traced_in_eval_mode_only() -> None:
    def forward(net: Any, x: Tensor, labels: Any = None) -> Tensor:
        y = net.one(x)
        return F.cross_entropy(net.aux(y), labels) if net.training else net.two(y)

    net = Net(forward, one=nn.Linear(5, 4), two=nn.Linear(4, 2), aux=nn.Linear(4, 2))
    coupling = trace_coupling(net, VECTOR)
    assert not coupling.trains
    assert letters(coupling, ("one", "out"), ("two", "in")) == ["abcd", "abcd"]


def test_training_mode_leaves_no_traces() -> None:
    """Layers are without their noise, and without batch statistics, of which a single image would have none."""

    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.drop(net.norm(net.one(x)))
        return net.aux(F.dropout(y, 0.5, net.training)) if net.training else net.last(y)

    layers = {"one": nn.Linear(5, 4), "norm": nn.BatchNorm1d(4), "drop": nn.Dropout()}
    net = Net(forward, **layers, last=nn.Linear(4, 2), aux=nn.Linear(4, 2))
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    assert trace_coupling(net, VECTOR).trains
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.get_rng_state().equal(state)


class Restless(nn.Module):
    """Counts its calls, remembers what it saw, and draws random numbers."""

    calls: Tensor
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.one, self.last = nn.Linear(5, 4), nn.Linear(4, 2)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(4), persistent=False)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        self.seen.append(y)
        self.calls += 1
        self.mean.mul_(0.9).add_(y.mean(0), alpha=0.1)
        return self.last(y + torch.rand(1))


def test_a_network_that_changes_itself_is_left_as_it_was() -> None:
    net = Restless()
    trace_coupling(net, torch.ones(2, 5))
    assert net.seen == []
    assert net.calls == 0
    assert not net.mean.any()


def test_random_numbers_go_on_as_before() -> None:
    net, state = Restless(), torch.get_rng_state()
    trace_coupling(net, torch.ones(2, 5))
    assert torch.get_rng_state().equal(state)


def test_a_network_is_left_as_it_was() -> None:
    net: Any = chain()
    net.norm.eval()
    net.one.weight.requires_grad_(False)
    net.two.register_forward_hook(lambda *_: None)
    net(torch.rand(1, 3, 8, 8)).sum().backward()
    hooks = [(dict(part._forward_hooks), dict(part._forward_pre_hooks)) for part in net.modules()]
    modes = [part.training for part in net.modules()]
    state = copy.deepcopy(net.state_dict())
    grads = [copy.deepcopy(one.grad) for one in net.parameters()]
    tensors = {name: (id(one), one.requires_grad) for name, one in net.state_dict(keep_vars=True).items()}
    trace_coupling(net, torch.rand(1, 3, 8, 8))
    assert [(dict(part._forward_hooks), dict(part._forward_pre_hooks)) for part in net.modules()] == hooks
    assert [part.training for part in net.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert {name: (id(one), one.requires_grad) for name, one in net.state_dict(keep_vars=True).items()} == tensors
    for one, grad in zip(net.parameters(), grads, strict=True):
        assert one.grad is None if grad is None else one.grad.equal(grad)
    net(torch.rand(1, 3, 8, 8)).sum().backward()


def test_a_network_that_fails_is_left_as_it_was() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        raise RuntimeError("no")

    net: Any = Net(forward, one=nn.Linear(5, 4))
    net.one.eval()
    with pytest.raises(RuntimeError, match="no"):
        trace_coupling(net, VECTOR)
    assert [part.training for part in net.modules()] == [True, False]
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())


def test_channels_of_the_input_are_joined_and_shuffled() -> None:
    """They stay, and so does what they are tied to by being split together."""

    def forward(net: Any, x: Tensor) -> Tensor:
        y = F.channel_shuffle(torch.cat([x, net.one(x)], 1), 2)
        y = y.view(len(y), 2, y.shape[1] // 2, *y.shape[2:]).transpose(1, 2).reshape(y.shape)
        return net.last(net.two(y).mean((2, 3)))

    net = Net(forward, one=conv(3, 3), two=conv(6, 5), last=nn.Linear(5, 2))
    coupling = trace_coupling(net, IMAGE)
    assert letters(coupling, ("one", "out"), ("two", "in"), ("two", "out")) == ["---", "------", "abcde"]
    assert coupling.reasons["one"]
