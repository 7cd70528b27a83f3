"""Networks that cannot be traced say why; those that only look so are traced."""

import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hard_networks import Net, conv
from torch import Tensor, nn
from torch.nn.utils import prune as masks

from rlprune.errors import UserError
from rlprune.tracing.build import build_graph

IMAGE = torch.zeros(1, 3, 8, 8)


def chain(**more: Any) -> Net:
    return Net(
        lambda net, x: net.last(net.two(net.one(x).relu()).relu().mean((2, 3))),
        one=conv(3, 8),
        two=conv(8, 6),
        last=nn.Linear(6, 2),
        **more,
    )


def caching() -> nn.Module:
    class Features(Net):
        def forward(self, x: Tensor) -> Tensor:
            self.features = {"one": [self.one(x).relu()]}
            return self.last(self.two(self.features["one"][0]).relu().mean((2, 3)))

    return Features(lambda net, x: x, one=conv(3, 8), two=conv(8, 6), last=nn.Linear(6, 2))


def masked() -> nn.Module:
    net = chain(three=conv(6, 6))
    net.run = lambda net, x: net.last(net.three(net.two(net.one(x).relu()).relu()).relu().mean((2, 3)))
    masks.l1_unstructured(net.three, "weight", 0.5)
    return net


def weight_norm() -> nn.Module:
    net = chain()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.nn.utils.weight_norm(net.two)
    return net


HISTORY: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "features that a module keeps": (caching, {"one", "two"}),
    "a mask": (masked, {"one"}),
    # Its input is read by a weight that is computed, its output is not its own.
    "the old weight norm": (weight_norm, set()),
}


@pytest.mark.parametrize("name", HISTORY)
def test_what_gradients_flow_through_is_in_nobodys_way(name: str) -> None:
    make, groups = HISTORY[name]
    net = make()
    net(torch.rand(2, 3, 8, 8)).sum().backward()
    if groups:
        assert {group.name for group in build_graph(net, IMAGE).groups} == groups
    else:
        with pytest.raises(UserError, match=r"no channels of this network can be pruned .*weight that is computed"):
            build_graph(net, IMAGE)


def test_lazy_layers_get_their_sizes() -> None:
    net = nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))
    graph = build_graph(net, IMAGE)
    assert [(group.name, group.channels) for group in graph.groups] == [("0", 8)]
    assert net[4].in_features == 8 * 36


def test_a_lazy_network_that_does_not_run() -> None:
    with pytest.raises(UserError, match=r"does not run on an image of shape \(3, 8, 8\)"):
        build_graph(nn.Sequential(nn.LazyConv2d(8, 3), nn.Linear(5, 2)), IMAGE)


def held_by_a_hook() -> nn.Module:
    net = chain()
    seen: list[Tensor] = []
    net.seen = seen
    net.one.register_forward_hook(lambda module, inputs, output: seen.append(output))
    net.run = lambda net, x: (net.seen.clear(), net.one(x), net.last(net.two(net.seen[0]).mean((2, 3))))[-1]
    return net


def with_gradients_inside() -> nn.Module:
    class Energy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Conv2d(3, 8, 3)

        def forward(self, x: Tensor) -> Tensor:
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                return torch.autograd.grad(self.one(x).tanh().sum(), x)[0]

    return Energy()


def locked() -> nn.Module:
    net = chain()
    net.two.lock = threading.Lock()
    return net


def ends_in(error: Exception) -> Callable[[], nn.Module]:
    def forward(net: Any, x: Tensor) -> Tensor:
        raise error

    return lambda: Net(forward, one=conv(3, 8))


WHY: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "hook": (held_by_a_hook, r"a copy of it does not \(.*\): the hook of 'one' may hold the first network"),
    "gradients": (with_gradients_inside, r"runs, but not without gradients \(element 0 of tensors does not require"),
    "lock": (locked, r"cannot be copied, because of 'two.lock': .*pickle"),
    "its own": (ends_in(RuntimeError("a fuse")), r"does not run on an image of shape \(3, 8, 8\): a fuse"),
    "key": (ends_in(KeyError("boxes")), r"does not run on an image of shape \(3, 8, 8\): KeyError: 'boxes'"),
    "attribute": (ends_in(AttributeError("no x")), "AttributeError: no x"),
}


@pytest.mark.parametrize("name", WHY)
def test_why_a_network_cannot_be_traced(name: str) -> None:
    make, said = WHY[name]
    with pytest.raises(UserError, match=said):
        build_graph(make(), IMAGE)


def test_faults_of_tracing_itself_are_not_the_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlprune.tracing.coupling._collect", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build_graph(chain(), IMAGE)
