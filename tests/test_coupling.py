"""What cannot be cut is refused, with its reason, and the rest is still offered."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rlprune.coupling import trace_coupling
from rlprune.errors import UserError


class Between(nn.Module):
    """Something between a first and a second convolution."""

    def __init__(self, first: nn.Module, middle: Callable[[Tensor], Tensor], second: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.last = first, second, nn.Linear(8, 2)
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.middle(self.first(x))).mean((2, 3)))


def conv(inputs: int, outputs: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups)


def refused(net: nn.Module) -> dict[str, str]:
    called = [name for name, layer in net.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    _, reasons = trace_coupling(net.eval(), torch.zeros(1, 3, 8, 8), called)
    assert reasons.pop("last") == "its channels are the network's output"
    return reasons


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, 8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


@pytest.mark.parametrize(
    ("middle", "reason"),
    [
        (Scale(), "it is tied to a parameter outside a layer"),
        (nn.GroupNorm(2, 8), "it is tied to a GroupNorm, which is not supported"),
        (nn.GroupNorm(2, 8, affine=False), "it is tied to a GroupNorm, which is not supported"),
        (nn.InstanceNorm2d(8), "it is tied to a InstanceNorm2d, which is not supported"),
        (nn.PReLU(8), "it is tied to a PReLU, which is not supported"),
        (nn.ConvTranspose2d(8, 8, 1), "it is tied to a ConvTranspose2d, which is not supported"),
    ],
)
def test_unsupported_neighbours(middle: nn.Module, reason: str) -> None:
    assert refused(Between(conv(3, 8), middle, conv(8, 8))) == {"first": reason}


@pytest.mark.parametrize("outputs", [8, 16])
def test_grouped_convolutions(outputs: int) -> None:
    reason = "it is tied to a grouped convolution"
    net = Between(conv(3, 8), conv(8, outputs, groups=4), conv(outputs, 8))
    assert refused(net) == {"first": reason, "middle": reason}


@pytest.mark.parametrize(
    ("middle", "inputs"),
    [
        (lambda x: x[:, :4], 4),
        (lambda x: x.mean(1, keepdim=True), 1),
        (lambda x: x[:, :4] * x[:, 4:], 4),
        (lambda x: nn.functional.pixel_shuffle(x, 2), 2),
    ],
)
def test_channels_that_are_not_read_one_by_one(middle: Callable[[Tensor], Tensor], inputs: int) -> None:
    assert refused(Between(conv(3, 8), middle, conv(inputs, 8)))["first"].startswith("its channels do not map evenly")


def test_a_single_channel() -> None:
    assert refused(Between(conv(3, 1), nn.ReLU(), conv(1, 8))) == {"first": "it has a single channel"}


def test_a_computed_weight() -> None:
    net = Between(nn.utils.parametrizations.weight_norm(conv(3, 8)), nn.ReLU(), conv(8, 8))
    assert refused(net) == {"first": "it is tied to a layer whose weight is computed from other parameters"}


def test_a_weight_that_layers_share() -> None:
    twin, other = conv(8, 8), conv(8, 8)
    other.weight = twin.weight
    net = Between(conv(3, 8), twin, other)
    reason = "it is tied to a parameter that several layers share"
    assert refused(net) == {"first": reason, "middle": reason, "second": reason}


def test_a_network_that_torch_pruning_cannot_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def build_dependency(*_: object, **__: object) -> None:
        raise ZeroDivisionError("modulo by zero")

    monkeypatch.setattr("torch_pruning.DependencyGraph.build_dependency", build_dependency)
    with pytest.raises(UserError, match="cannot be traced: torch-pruning ends in ZeroDivisionError: modulo by zero"):
        refused(Between(conv(3, 8), nn.ReLU(), conv(8, 8)))


def test_a_sum_with_a_concatenation_falls_into_its_parts() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.other, self.one, self.two, self.last = conv(3, 7), conv(3, 4), conv(3, 3), nn.Linear(7, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last((self.other(x) + torch.cat([self.one(x), self.two(x)], 1)).mean((2, 3)))

    cut, reasons = trace_coupling(Sum(), torch.zeros(1, 3, 8, 8), ["other", "one", "two", "last"])
    assert {name: list(coupled.sides) for name, coupled in cut.items()} == {
        "one": [("other", "out"), ("one", "out"), ("last", "in")],
        "two": [("other", "out"), ("two", "out"), ("last", "in")],
    }
    assert set(reasons) == {"last"}


def test_layers_that_are_tied_to_a_part_of_another() -> None:
    """A depthwise convolution over a concatenation goes with both of its parts."""

    class Ghost(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.both, self.last = conv(3, 4), conv(3, 3), conv(7, 7, groups=7), nn.Linear(7, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.both(torch.cat([self.one(x), self.two(x)], 1)).mean((2, 3)))

    cut, _ = trace_coupling(Ghost(), torch.zeros(1, 3, 8, 8), ["one", "two", "both", "last"])
    assert {name: coupled.channels for name, coupled in cut.items()} == {"one": 4, "two": 3}
    indices, channels = cut["two"].sides["both", "out"]
    assert sorted(zip(channels, indices, strict=True)) == [(0, 4), (1, 5), (2, 6)]
