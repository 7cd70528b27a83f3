"""What a tracer knows about a run: whose tensors these are, where channels end, and that nothing else has changed."""

import dataclasses
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hard_networks import Net, weight
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils._python_dispatch import _get_current_dispatch_mode

import rlprune.tracing.data_rules
import rlprune.tracing.weight_rules  # noqa: F401  (both fill the table of rules)
from rlprune.tracing import tracer
from rlprune.tracing.labels import ALWAYS
from rlprune.tracing.tracer import COMPUTED, INPUT, OUTER, OUTPUT, Tracer

VECTOR = torch.rand(2, 5)
IMAGE = torch.rand(1, 3, 8, 8)
aten = torch.ops.aten


def traced(module: nn.Module, example: Any = VECTOR) -> Tracer:
    trace = Tracer(module.eval())
    trace.run(module, example)
    return trace


def kept(trace: Tracer, labels: Tensor) -> list[bool]:
    """Whether each is never cut."""
    return (trace.ties.resolve()[0][labels.numpy()] == ALWAYS).ravel().tolist()


def same(trace: Tracer, one: Tensor, other: Tensor) -> bool:
    """Whether these are the same channels, one by one, and different among themselves."""
    channels = trace.ties.resolve()[0]
    one, other = channels[one.numpy()].ravel(), channels[other.numpy()].ravel()
    return np.array_equal(one, other) and len(set(one)) == len(one)


def why(trace: Tracer, labels: Tensor) -> set[str]:
    reasons = trace.ties.resolve()[1]
    return {reasons[label] for label in labels.flatten().tolist()}


def chain(middle: Callable[[Any, Tensor], Tensor], **parts: Any) -> Net:
    """Two linear layers with something between them that leaves four channels."""
    layers = {"one": nn.Linear(5, 4), "two": nn.Linear(4, 3)}
    return Net(lambda net, x: net.two(middle(net, net.one(x))), **layers, **parts)


def test_a_function_with_a_layers_weight_is_the_layer() -> None:
    by_layer = traced(Net(lambda net, x: net.one(x), one=nn.Linear(5, 4)))
    by_function = traced(Net(lambda net, x: F.linear(x, net.one.weight, net.one.bias), one=nn.Linear(5, 4)))
    assert by_layer.sides.keys() == by_function.sides.keys() == {"one.weight"}
    assert by_layer.positions == by_function.positions == {"one.weight": 2}


def test_a_parameter_of_two_layers_is_one() -> None:
    layers = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3))
    layers[2].weight = layers[1].weight
    trace = traced(layers)
    assert list(trace.sides) == ["0.weight", "1.weight", "3.weight"]
    assert trace.positions["1.weight"] == 4
    # What it makes is what it reads next.
    assert same(trace, *trace.sides["1.weight"])
    assert same(trace, trace.elements["1.bias"], trace.elements["2.bias"])


def test_a_layer_under_two_names_has_the_first() -> None:
    layer = nn.Linear(5, 4)
    trace = traced(Net(lambda net, x: net.two(net.b(x)), a=layer, b=layer, two=nn.Linear(4, 3)))
    assert list(trace.sides) == ["a.weight", "two.weight"]
    assert trace.name(layer.weight) == "a.weight"


def test_names() -> None:
    net: Any = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4))
    net.register_buffer("hidden", torch.zeros(3), persistent=False)
    trace = Tracer(net)
    assert trace.name(net[0].weight) == "0.weight"
    assert trace.name(net[1].running_mean) == "1.running_mean"
    assert trace.name(net.hidden) == "hidden"
    assert trace.name(torch.zeros(3)) is None
    assert trace.name(None) is None


@pytest.mark.parametrize("view", [lambda w: w.detach(), lambda w: w.clone(), lambda w: w * 2, lambda w: w.data])
def test_what_is_made_of_a_weight_is_not_that_weight(view: Callable[[Tensor], Tensor]) -> None:
    net = Net(lambda net, x: F.linear(net.one(x), view(net.one.weight)), one=nn.Linear(5, 5))
    trace = traced(net)
    assert all(kept(trace, trace.sides["one.weight"][0]))
    assert COMPUTED in why(trace, trace.sides["one.weight"][0])
    assert trace.refused == {"": (COMPUTED, 2 * 5 * 5)}


@pytest.mark.parametrize("numbers", [torch.arange(4), torch.arange(4) > 1])
def test_numbers_that_are_no_floats_are_no_channels(numbers: Tensor) -> None:
    net = chain(lambda net, y: y * net.mask)
    net.register_buffer("mask", numbers)
    trace = traced(net)
    assert all(kept(trace, trace.sides["one.weight"][0]))
    assert why(trace, trace.sides["one.weight"][0]) == {INPUT}


def test_elements_of_a_parameter() -> None:
    trace = traced(chain(lambda net, y: y * net.gain, gain=weight(4)))
    assert same(trace, trace.elements["gain"], trace.sides["one.weight"][0])
    assert same(trace, trace.elements["one.bias"], trace.sides["two.weight"][1])


def test_a_parameter_along_two_dimensions_follows_one_of_them_or_none() -> None:
    trace = traced(chain(lambda net, y: (y[:, :, None] * net.outer).sum(2), outer=weight(4, 6)))
    assert same(trace, trace.elements["outer"][:, 5], trace.sides["one.weight"][0])
    assert len(set(trace.ties.resolve()[0][trace.elements["outer"].numpy()].ravel())) == 4
    trace = traced(chain(lambda net, y: y * net.outer.norm(), outer=weight(4, 6)))
    assert why(trace, trace.elements["outer"]) == {OUTER}
    assert not any(kept(trace, trace.sides["one.weight"][0]))


LARGE: dict[str, tuple[Callable[[Any, Tensor], Tensor], tuple[int, ...]]] = {
    "vector": (lambda net, y: y * net.gain, (4,)),
    "table": (lambda net, y: y + net.gain[2], (9, 4)),
    "tokens": (lambda net, y: (y[:, None] + net.gain).mean(1), (1, 5, 4)),
    "map": (lambda net, y: (y[:, :, None, None] + net.gain).mean((2, 3)), (1, 4, 2, 3)),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_parameters_follow_their_likely_channels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracer, "LARGEST", 3)
    run, shape = LARGE[name]
    trace = traced(chain(run, gain=weight(*shape)))
    outputs = trace.sides["one.weight"][0]
    assert not any(kept(trace, outputs))
    assert same(trace, trace.elements["gain"].movedim(1 if len(shape) == 4 else -1, 0).reshape(4, -1)[:, 0], outputs)


def test_large_parameters_with_channels_elsewhere_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracer, "LARGEST", 3)
    trace = traced(chain(lambda net, y: (y[:, :, None] * net.gain).sum(2), gain=weight(4, 6)))
    assert len(set(trace.ties.resolve()[0][trace.sides["one.weight"][0].numpy()])) == 1


IN_PLACE: dict[str, Callable[[Any, Tensor], Any]] = {
    "add_": lambda net, y: y.add_(net.gain),
    "mul_": lambda net, y: y.mul_(net.gain).relu_(),
    "operator": lambda net, y: y.__iadd__(net.gain),
    "another view": lambda net, y: y.t().mul_(net.gain[:, None]),
    "clamp_": lambda net, y: y.mul_(net.gain).clamp_(0, 3),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place(name: str) -> None:
    """The tensor itself is labelled as the result, and says which channels it met."""

    def middle(net: Any, y: Tensor) -> Tensor:
        IN_PLACE[name](net, y)
        return y

    trace = traced(chain(middle, gain=weight(4)))
    assert same(trace, trace.elements["gain"], trace.sides["one.weight"][0])
    assert same(trace, trace.sides["one.weight"][0], trace.sides["two.weight"][1])


def test_a_part_is_changed_in_place() -> None:
    def middle(net: Any, y: Tensor) -> Tensor:
        y = y.clone()
        y[:, 1:].mul_(net.gain)
        return y

    trace = traced(chain(middle, gain=weight(3)))
    assert all(kept(trace, trace.sides["one.weight"][0]))
    assert all(kept(trace, trace.elements["gain"]))


def test_a_module_that_is_called_twice() -> None:
    trace = traced(Net(lambda net, x: net.last(net.one(net.one(x).relu())), one=nn.Linear(5, 5), last=nn.Linear(5, 3)))
    assert trace.positions == {"one.weight": 4, "last.weight": 2}
    assert all(kept(trace, trace.sides["one.weight"][0]))
    assert why(trace, trace.sides["one.weight"][0]) == {INPUT}


COMPOSITE: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "hsplit": lambda _, y: torch.cat(y.hsplit(1), 1),
    "sum_to_size": lambda _, y: y.square().sum_to_size(2, 4),
    "atleast_2d": lambda _, y: torch.atleast_2d(y),
    "softsign": lambda _, y: F.softsign(y),
    "normalize": lambda _, y: F.normalize(y[:, :, None], dim=2).squeeze(2),
    "hstack": lambda _, y: torch.hstack([y]),
    "clip": lambda _, y: torch.clip(y, 0, 1),
}


@pytest.mark.parametrize("name", COMPOSITE)
def test_composite_operations_are_looked_into(name: str) -> None:
    trace = traced(chain(COMPOSITE[name]))
    assert same(trace, trace.sides["one.weight"][0], trace.sides["two.weight"][1])


def test_an_unknown_operation_is_named() -> None:
    trace = traced(chain(lambda _, y: y.cumprod(1)))
    assert why(trace, trace.sides["one.weight"][0]) == {"it goes through cumprod, which cannot be followed"}
    assert all(kept(trace, trace.sides["two.weight"][1]))
    assert why(trace, trace.sides["two.weight"][1]) == {INPUT}


@dataclasses.dataclass
class Output:
    value: Any
    number: int = 3


@dataclasses.dataclass(frozen=True)
class SlottedOutput:
    __slots__ = ("value",)
    value: Any


class Named(NamedTuple):
    value: Any


class Dictionary(dict[str, Any]):
    pass


class Sequence(list[Any]):
    pass


class Plain:
    def __init__(self, value: Any) -> None:
        self.value, self.text = value, "text"


WRAPPED: dict[str, Callable[[Tensor], Any]] = {
    "tensor": lambda y: y,
    "tuple": lambda y: (1, y),
    "list": lambda y: [[y], None],
    "dict": lambda y: {"a": {"b": (y, "text")}},
    "ordered dict": lambda y: OrderedDict(a=y),
    "default dict": lambda y: defaultdict(list, a=[y]),
    "named tuple": Named,
    "dataclass": Output,
    "dataclass with a list": lambda y: Output([y, {"a": y}]),
    "list of dataclasses": lambda y: [Output(y)],
    "object": Plain,
    "dataclass with slots": SlottedOutput,
    "dataclass in a dataclass": lambda y: Output(Output(y)),
    "dataclass with a list of dataclasses": lambda y: Output([Output(y)]),
    "kind of dict": lambda y: Dictionary(a=y),
    "kind of list": lambda y: Sequence([y]),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_outputs_stay_whatever_they_are_wrapped_in(name: str) -> None:
    net = Net(lambda net, x: WRAPPED[name](net.two(net.one(x))), one=nn.Linear(5, 4), two=nn.Linear(4, 3))
    trace = Tracer(net.eval())
    output = trace.run(net, VECTOR)
    assert all(kept(trace, trace.sides["two.weight"][0]))
    assert why(trace, trace.sides["two.weight"][0]) == {OUTPUT}
    assert not any(kept(trace, trace.sides["one.weight"][0]))
    assert type(output) is type(WRAPPED[name](VECTOR))


def test_the_result_is_the_networks() -> None:
    net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).eval()
    assert Tracer(net).run(net, VECTOR).equal(net(VECTOR))


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("ends", ["well", "badly"])
def test_the_callers_modes_are_left_alone(enabled: bool, ends: str) -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        assert not torch.backends.mha.get_fastpath_enabled()
        if ends == "badly":
            raise KeyError
        return net.one(x)

    net = Net(forward, one=nn.Linear(5, 4)).eval()
    torch.backends.mha.set_fastpath_enabled(enabled)
    try:
        with torch.set_grad_enabled(enabled):
            if ends == "badly":
                with pytest.raises(KeyError):
                    Tracer(net).run(net, VECTOR)
            else:
                Tracer(net).run(net, VECTOR)
            assert torch.is_grad_enabled() == enabled
        assert torch.backends.mha.get_fastpath_enabled() == enabled
        assert not torch.is_inference_mode_enabled()
        assert _get_current_dispatch_mode() is None
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_warnings_of_the_network_are_its_own() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        warnings.warn("something", stacklevel=1)
        return net.one(x)

    net = Net(forward, one=nn.Linear(5, 4)).eval()
    Tracer(net).run(net, VECTOR)
    with pytest.warns(UserWarning, match="something"):
        net(VECTOR)


def test_grad_inside_the_network() -> None:
    """A part that is run without gradients, or with them, is followed all the same."""

    def middle(_: Any, y: Tensor) -> Tensor:
        with torch.no_grad():
            y = y.relu()
        with torch.enable_grad():
            return y.tanh()

    trace = traced(chain(middle))
    assert same(trace, trace.sides["one.weight"][0], trace.sides["two.weight"][1])


def test_counting_can_be_turned_off() -> None:
    net = nn.Sequential(nn.Linear(5, 4), parametrizations.weight_norm(nn.Linear(4, 3))).eval()
    trace = Tracer(net)
    trace.run(net, VECTOR)
    before = dict(trace.positions), dict(trace.refused)
    trace.counting = False
    trace.run(net, VECTOR)
    assert (trace.positions, trace.refused) == before == ({"0.weight": 2}, {"1": (COMPUTED, 24)})
    trace.counting = True
    trace.run(net, VECTOR)
    assert (trace.positions, trace.refused) == ({"0.weight": 4}, {"1": (COMPUTED, 48)})


def test_parameters_are_in_the_order_of_their_first_use() -> None:
    net = Net(
        lambda net, x: net.c(net.a(net.b(x)) * net.gain),
        a=nn.Linear(4, 4),
        b=nn.Linear(5, 4),
        c=nn.Linear(4, 3),
        gain=weight(4),
        spare=weight(4, 4),
    )
    trace = traced(net)
    assert list(trace.order) == ["b.weight", "b.bias", "a.weight", "a.bias", "gain", "c.weight", "c.bias"]
    assert list(trace.order.values()) == list(range(7))


def test_where_channels_met() -> None:
    block = Net(lambda net, x: x + net.two(net.one(x)), one=nn.Linear(4, 4), two=nn.Linear(4, 4))
    trace = traced(nn.Sequential(nn.Linear(5, 4), block, nn.Linear(4, 3)))
    ((labels, text),) = trace.notes
    assert text == "sum in 1"
    assert len(labels) == 4


def test_along() -> None:
    trace = Tracer(nn.Module())
    labels = trace.ties.fresh(2, 3, 2)
    assert trace.along(labels, -2).shape == (3,)
    channels = trace.ties.resolve()[0][labels.numpy()]
    assert (channels == channels[:1, :, :1]).all()
    assert len(np.unique(channels)) == 3


def test_what_a_result_is_labelled_with() -> None:
    trace = Tracer(nn.Module())
    x = torch.zeros(2, 3, 4)
    trace.put(x, trace.ties.fresh(3, 1))
    assert trace.labels(x).shape == x.shape
    assert trace.labels(x)[1, :, 2].tolist() == [1, 2, 3]
    assert not trace.labels(torch.zeros(3)).any()
    trace.tie_parameter(None, trace.labels(x))
    trace.put(x, trace.ties.fresh(4))
    assert trace.labels(x)[0, 0].tolist() == [4, 5, 6, 7]


def test_the_innermost_layer_is_refused() -> None:
    inner = nn.Sequential(nn.ReLU(), parametrizations.weight_norm(nn.Linear(4, 4)))
    trace = traced(nn.Sequential(nn.Linear(5, 4), inner, nn.Linear(4, 3)))
    assert trace.refused == {"1.1": (COMPUTED, 32)}


def test_attention_layers_are_not_fused() -> None:
    """In eval mode, torch would take a single operation that nobody can look into."""
    trace = traced(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), torch.rand(2, 5, 4))
    assert {"self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight"} <= set(trace.sides)
    assert not any(kept(trace, trace.sides["linear1.weight"][0]))
