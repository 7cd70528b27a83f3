"""Layers as they are called, against the modules that call them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlprune.latency.layers import as_module, find_layers, read_layer
from rlprune.tracing.build import build_graph


class Calls(nn.Module):
    """Strides, paddings, groups, a raw parameter, a layer that is called twice, and one with computed weights."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, 3, 3, 3))
        self.wide = nn.Conv2d(8, 16, (3, 5), stride=(2, 1), padding=(1, 2))
        self.depth = nn.Conv2d(16, 16, 3, padding="same", groups=16)
        self.grouped = nn.Conv2d(16, 8, 1, groups=2)
        self.twice = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        self.base = nn.Parameter(torch.randn(8, 8, 1, 1))
        self.last = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depth(self.wide(F.conv2d(x, self.kernel, padding=1)))
        x = self.twice(self.twice(self.grouped(x)))
        return self.last(F.conv2d(x, 2 * self.base).mean((2, 3)))


def test_every_call_is_found() -> None:
    module = Calls().eval()
    found = find_layers(module, (3, 12, 12))
    names = ["kernel", "wide.weight", "depth.weight", "grouped.weight", "twice.weight", "twice.weight", "last.weight"]
    assert [name for name, _ in found] == names
    layers = dict(found)
    assert layers["wide.weight"].stride == (2, 1)
    assert layers["wide.weight"].spatial == (12, 12)
    assert layers["depth.weight"].padding == (1, 1)
    assert layers["depth.weight"].groups_at(10) == 10
    assert layers["grouped.weight"].groups_at(4) == 2
    assert layers["last.weight"].spatial == (1,)
    assert all(read_layer(layer.as_dict()) == layer for layer in layers.values())


def test_layers_alone_are_those_of_the_network() -> None:
    """At dense counts a layer has the shapes that it has inside."""
    module, shapes = Calls().eval(), []
    layers = [(name, layer) for name, layer in find_layers(module, (3, 12, 12)) if name != "kernel"]
    modules = dict(module.named_modules())
    handles = [
        modules[name.rpartition(".")[0]].register_forward_hook(
            lambda _, inputs, output: shapes.append((inputs[0].shape, output.shape))
        )
        for name in dict(layers)
    ]
    module(torch.zeros(1, 3, 12, 12))
    for handle in handles:
        handle.remove()
    assert len(shapes) == len(layers)
    for (_, layer), (taken, made) in zip(layers, shapes, strict=True):
        alone, shape = as_module(layer, *layer.shape)
        assert (1, *shape) == tuple(taken) or (1, 1, *taken[1:]) == (1, *shape)
        assert alone(torch.zeros(1, *shape)).shape[-1] == made[-1]


def test_layers_follow_what_is_kept() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(64, 2)
    )
    layers = [layer for _, layer in find_layers(net, (3, 8, 8))]
    build_graph(net, torch.zeros(1, 3, 8, 8))
    alone, shape = as_module(layers[1], 5, 1)
    assert (alone.in_channels, alone.out_channels, alone.groups, shape) == (5, 5, 5, (5, 6, 6))
    alone, shape = as_module(layers[3], 2, 48)
    assert (alone.in_features, shape) == (48, (1, 48))
