"""Gates stay where a channel that is left out is as good as zeroed, and go where it is not."""

from collections.abc import Callable
from dataclasses import dataclass
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
from gated import gate, images
from hard_networks import Net, conv, weight
from torch import Tensor, nn
from torch.nn import functional as F

from rlprune.errors import UserError
from rlprune.gating.agreement import DisagreementError, require_agreement, sound_wires
from rlprune.gating.gate import KeepRatios, possible_wires
from rlprune.gating.network import GatedNetwork
from rlprune.gating.skipping import SkippingNetwork
from rlprune.graph.surgery import prune
from rlprune.tracing.build import build_graph

SIZE = 12
MIXES, FOLDED = "mixes channels", r"given 6 images where the network is given 3"


@dataclass(frozen=True)
class Case:
    """A network, the layers that have a gate, and why the others of `first`, `second` and `third` have none."""

    name: str
    make: Callable[[], nn.Module]
    gates: str
    why_not: str = ""


def chain(between: Callable[[Any, Tensor], Tensor] = lambda net, y: y, **parts: Any) -> Net:
    """Three convolutions in a row, and something between the first two."""
    layers: dict[str, Any] = {"first": conv(3, 10), "second": conv(10, 8), "third": conv(8, 6), "last": nn.Linear(6, 4)}
    return Net(
        lambda net, x: net.last(net.third(net.second(between(net, net.first(x).relu())).relu()).relu().mean((2, 3))),
        **layers | parts,
    )


def sliced_reader() -> Net:
    """Reads the second convolution's channels by a parameter of its own."""
    return Net(
        lambda net, x: F.conv2d(net.second(net.first(x).relu()).relu(), net.weights).mean((2, 3)),
        first=conv(3, 10),
        second=conv(10, 8),
        weights=weight(4, 8, 1, 1),
    )


def twice(layer: str) -> Net:
    """The first two convolutions see the image and its mirror image, or the third sees two forms of what it reads."""
    parts: dict[str, Any] = {"first": conv(3, 10), "second": conv(10, 8), "third": conv(8, 6), "last": nn.Linear(6, 4)}

    def shared(net: Any, x: Tensor) -> Tensor:
        seen = [net.second(net.first(side).relu()) for side in (x, x.flip(3))]
        return net.last(net.third((seen[0] - seen[1]).sigmoid()).relu().mean((2, 3)))

    def read(net: Any, x: Tensor) -> Tensor:
        y = net.second(net.first(x).relu())
        return net.last((net.third(y.relu()) + net.third(y.tanh())).relu().mean((2, 3)))

    return Net(shared if layer == "second" else read, **parts)


def frames() -> Net:
    """The first two see both halves of every image as images of their own, the third their mean."""

    def forward(net: Any, x: Tensor) -> Tensor:
        halves = torch.cat(x.chunk(2, dim=3))
        y = net.second(net.first(halves).relu()).relu()
        return net.last(net.third(y.unflatten(0, (2, -1)).mean(0)).relu().mean((2, 3)))

    return Net(forward, first=conv(3, 10), second=conv(10, 8), third=conv(8, 6), last=nn.Linear(6, 4))


def unlike_padding() -> Net:
    modes = ("reflect", "circular", "replicate")
    sizes = ((3, 10), (10, 8), (8, 6))
    layers = [nn.Conv2d(*size, 3, padding=1, padding_mode=mode) for size, mode in zip(sizes, modes, strict=True)]
    return chain(**dict(zip(("first", "second", "third"), layers, strict=True)))


class Standardised(nn.Conv2d):
    """Its weights have mean zero over its inputs."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias, padding=1)


class Doubled(nn.Conv2d):
    """A convolution with some padding, in code of its own."""

    border = 0.0

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (1, 1, 1, 1), value=self.border)
        return 2 * F.conv2d(padded, self.weight, self.bias, groups=self.groups)


class Framed(Doubled):
    """What it reads has a border that no channel is zero in."""

    border = 0.5


class NormWithActivation(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sigmoid()


def lively_norm(channels: int) -> nn.Module:
    norm = NormWithActivation(channels)
    nn.init.uniform_(norm.running_mean, -1, 1)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    nn.init.uniform_(norm.bias, -1, 1)
    return norm


def patched() -> Net:
    net = chain()
    net.second.forward = MethodType(lambda layer, x: 3 * nn.Conv2d.forward(layer, x), net.second)
    return net


def by_its_name(net: Any, y: Tensor) -> Tensor:
    return net.norm(input=y)


def channels_last(net: Any, y: Tensor) -> Tensor:
    return net.mixer(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def detour(net: Any, y: Tensor) -> Tensor:
    """Not by the module's call, which gates go by."""
    return F.conv2d(y, net.inner.weight, padding=1).relu()


CASES = [
    Case("nothing between", chain, "first second third"),
    Case("a norm by hand", lambda: chain(lambda net, y: y / y.square().mean(1, True).sqrt()), "second third", MIXES),
    Case("layer norm", lambda: chain(lambda net, y: F.layer_norm(y, y.shape[1:])), "second third", MIXES),
    Case("softmax", lambda: chain(lambda net, y: y.softmax(1)), "second third", MIXES),
    Case("attention", lambda: chain(lambda net, y: y * y.amax(1, True).sigmoid()), "second third", MIXES),
    Case("minus the mean", lambda: chain(lambda net, y: y - y.mean(1, True)), "second third", MIXES),
    Case("an activation of zero that is none", lambda: chain(lambda net, y: (y - 1).cos()), "first second third"),
    Case("a functional reader", sliced_reader, "first"),
    Case("padding of other kinds", unlike_padding, "first second third"),
    Case("standardised weights", lambda: chain(second=Standardised(10, 8, 3)), "third"),
    Case("code of its own", lambda: chain(second=Doubled(10, 8, 3)), "first second third"),
    Case("a border", lambda: chain(second=Framed(10, 8, 3)), "second third", MIXES),
    Case("depthwise, code of its own", lambda: chain(lambda net, y: net.own(y), own=Framed(10, 10, 3, groups=10)),
         "first second third"),
    Case("a forward put in its place", patched, "first second third"),
    Case("a norm with an activation", lambda: chain(lambda net, y: net.norm(y), norm=lively_norm(10)),
         "first second third"),
    Case("by its name", lambda: chain(by_its_name, norm=nn.BatchNorm2d(10)), "first second third"),
    Case("channels last", lambda: chain(channels_last, mixer=nn.Linear(10, 10)), "first second third"),
    Case("two outputs of each channel", lambda: chain(lambda net, y: net.wide(y), wide=conv(10, 20, groups=10),
         second=conv(20, 8)), "first second third"),
    Case("called twice", lambda: twice("second"), "first second third"),
    Case("read twice", lambda: twice("third"), "first second third"),
    Case("frames", frames, "third", FOLDED),
]  # fmt: skip


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    torch.manual_seed(0)
    return request.param


def test_gates_and_why_there_is_none(case: Case) -> None:
    net = case.make().eval()
    graph = build_graph(net, torch.zeros(1, 3, SIZE, SIZE))
    wires, why_not = sound_wires(net, graph, possible_wires(net, graph), images(3, size=SIZE))
    assert [wire.layer for wire in wires] == case.gates.split()
    assert bool(why_not) == bool(case.why_not)
    for reason in why_not.values():
        assert case.why_not.replace(r"\.", ".") in reason
    assert not net._forward_pre_hooks
    assert not any(layer._forward_pre_hooks for layer in net.modules())


def test_deployed_is_masked_is_removed(case: Case) -> None:
    """Of every image alone, the network with its channels zeroed, left out, and physically cut away."""
    made = gate(case.make(), predicts=False, size=SIZE)
    for each in made.gated.gates:
        nn.init.ones_(each.scale)
    pictures, ratios = images(3, size=SIZE), np.array([0.3, 0.5, 0.8])
    made.gated.runtime = None
    scored = {number: np.random.default_rng(number).permutation(len(each.scale)) for number, each in
              enumerate(made.gated.gates)}  # fmt: skip

    def choose(number: int, pooled: Tensor) -> tuple[Tensor, Tensor]:
        order, asked = scored[number], ratios if len(pooled) == 3 else ratios[[picture]]
        mask = torch.from_numpy(order[None] < np.ceil(asked * len(order))[:, None])
        return mask, torch.ones(mask.shape)

    module = SkippingNetwork(made.gated).eval()
    with torch.no_grad():
        made.gated.choose = choose
        masked = made.gated(pictures)
        masks = [mask.numpy() for mask in made.gated.masks]
        for picture in range(3):
            with module._gathering.on(choose):
                alone = made.gated(pictures[[picture]])
            kept = np.ones(sum(made.graph.sizes), dtype=bool)
            for wire, mask in zip(made.gated.wires, masks, strict=True):
                kept[wire.start : wire.stop] = mask[picture]
            cut = prune(made.dense, made.graph, kept).eval()(pictures[[picture]])
            torch.testing.assert_close(alone, cut, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(masked[[picture]], cut, rtol=1e-4, atol=1e-5)


def test_what_is_run_again_is_what_was_chosen(case: Case) -> None:
    made = gate(case.make(), size=SIZE)
    module, pictures = SkippingNetwork(made.gated).eval(), images(4, size=SIZE)
    with torch.no_grad():
        masked = made.gated(pictures)
    assert len(made.gated.counts()) == 4
    torch.testing.assert_close(torch.cat([module(each[None]) for each in pictures]), masked, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(module.grouped(pictures, 2), masked, rtol=1e-4, atol=1e-5)


def test_none_is_left() -> None:
    net = Net(
        lambda net, x: net.last(net.first(x).softmax(1).flatten(1)), first=conv(3, 5), last=nn.Linear(5 * 144, 4)
    ).eval()
    graph = build_graph(net, torch.zeros(1, 3, SIZE, SIZE))
    with pytest.raises(UserError, match=r"no layer .* can be skipped image by image: of first, left out, its channels"):
        sound_wires(net, graph, possible_wires(net, graph), images(3, size=SIZE))


def test_a_module_that_is_not_called_is_no_traceback() -> None:
    torch.manual_seed(0)
    net = chain(detour, inner=nn.Conv2d(10, 10, 3, padding=1, bias=False)).eval()
    graph = build_graph(net, torch.zeros(1, 3, SIZE, SIZE))
    wires, why_not = sound_wires(net, graph, possible_wires(net, graph), images(3, size=SIZE))
    assert {wire.layer for wire in wires} == {"second", "third"}
    assert set(why_not) == {"first", "inner"} & {wire.layer for wire in possible_wires(net, graph)}


def test_the_largest_set_takes_few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    net = chain().eval()
    graph = build_graph(net, torch.zeros(1, 3, SIZE, SIZE))
    wires, tried = list(possible_wires(net, graph)) * 11, []
    bad = {5, 20}

    def try_(network: nn.Module, graph: object, wires: tuple[Any, ...], pictures: Tensor) -> str | None:
        tried.append(wires)
        return "it is bad" if bad & {wire.group for wire in wires} else None

    monkeypatch.setattr("rlprune.gating.agreement._tried", try_)
    numbered = [type(wire)(number, f"layer {number}", 0, 1) for number, wire in enumerate(wires)]
    found, why_not = sound_wires(net, graph, numbered, images(3, size=SIZE))
    assert [wire.group for wire in found] == [number for number in range(33) if number not in bad]
    assert why_not == {"layer 5": "it is bad", "layer 20": "it is bad"}
    assert len(tried) < 24


def test_agreement_of_the_networks_own_decisions() -> None:
    torch.manual_seed(0)
    made = gate(chain(), size=SIZE)
    require_agreement(made.gated, images(3, size=SIZE))
    # A gate that should not be there.
    bad = chain(lambda net, y: y - y.mean(1, True)).eval()
    graph = build_graph(bad, torch.zeros(1, 3, SIZE, SIZE))
    gated = GatedNetwork(bad, graph, possible_wires(bad, graph), list(made.gated.gates), 1.0).eval()
    half = lambda number, pooled, importance: KeepRatios(*[np.full(len(pooled), 0.5)] * 2)  # noqa: E731
    gated._decide = half
    with pytest.raises(DisagreementError, match=MIXES):
        require_agreement(gated, images(3, size=SIZE), lambda number, pooled: _halved(made.gated, number, pooled, half))


def _halved(gated: GatedNetwork, number: int, pooled: Tensor, decide: Any) -> tuple[Tensor, Tensor]:
    gated._decide = decide
    return gated.chosen(number, pooled)
