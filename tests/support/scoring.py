"""Networks of a few channels for criteria, and what they are scored by."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rlprune.methods.criteria.base import score_channels
from rlprune.tracing.build import build_graph


class Coupled(nn.Module):
    """One of every coupling on 6 x 6 pixels, all weights in float32 and the classes two.

    Groups: `stem` (4 channels, a residual sum with `body`), `wide` (6, tied to the depthwise `depth`), `left` (3) and
    `right` (2), which `both` reads one behind the other, `grouped` (4 bundles of 2, tied to the grouped `pairs`), and
    `hidden` (3), which stands behind a flatten of `pairs`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.body = nn.Conv2d(4, 4, 1, bias=False)
        self.wide, self.depth = nn.Conv2d(4, 6, 1), nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6)
        self.left, self.right = nn.Conv2d(6, 3, 1), nn.Conv2d(6, 2, 3, padding=1, dilation=1)
        self.grouped, self.pairs = nn.Conv2d(5, 8, 1), nn.Conv2d(8, 8, 2, groups=4)
        self.hidden, self.last = nn.Linear(8 * 4, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_norm(self.stem(x)).relu()
        x = x + self.body(x)
        x = self.depth(self.wide(x).relu()).relu()
        x = torch.cat([self.left(x), self.right(x)], 1).tanh()
        x = self.pairs(self.grouped(x).relu())
        return self.last(self.hidden(x.flatten(1)).tanh())


def coupled() -> nn.Module:
    """That network, with weights and statistics of its own."""
    torch.manual_seed(3)
    net = Coupled()
    nn.init.uniform_(net.stem_norm.weight, 0.5, 1.5)
    assert net.stem_norm.running_mean is not None
    assert net.stem_norm.running_var is not None
    nn.init.uniform_(net.stem_norm.running_mean, -0.5, 0.5)
    nn.init.uniform_(net.stem_norm.running_var, 0.5, 1.5)
    return net.eval()


class Folding(nn.Module):
    """Its last layers read every place of every image as a row of its own, in any order."""

    def __init__(self, before: bool) -> None:
        super().__init__()
        self.one, self.two, self.last = nn.Conv2d(3, 4, 1), nn.Linear(4, 3), nn.Linear(3, 2)
        self.before = before

    def forward(self, x: Tensor) -> Tensor:
        rows = self.one(x).relu().flatten(2)
        rows = rows.movedim(2, 0) if self.before else rows.mT.flatten(0, 1)
        rows = self.last(self.two(rows).tanh())
        return rows.mean(0) if self.before else rows.unflatten(0, (len(x), -1)).mean(1)


BATCH = torch.randn(6, 3, 6, 6, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 2


def scores_of(name: str, net: nn.Module, batch: tuple[Tensor, Tensor] = BATCH, seed: int = 0) -> dict[str, np.ndarray]:
    """Group -> scores of its channels, by a criterion that is named."""
    graph = build_graph(net, batch[0][:1])
    scores = score_channels(name, net, graph, batch, seed)
    return {group.name: mine for group, mine in zip(graph.groups, graph.split(scores), strict=True)}


def conv(weight: Any, **settings: Any) -> nn.Conv2d:
    """A convolution without bias, of (outputs, inputs) or (outputs, inputs, height, width) weights."""
    weight = torch.as_tensor(weight, dtype=torch.float32)
    weight = weight if weight.dim() == 4 else weight[..., None, None]
    groups = settings.get("groups", 1)
    layer = nn.Conv2d(weight.shape[1] * groups, len(weight), tuple(weight.shape[2:]), bias=False, **settings)  # type: ignore[arg-type]
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


def head(channels: int, classes: int = 2) -> list[nn.Module]:
    """What makes classes of so many channels."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


def write_snapshots(net: nn.Module, folder: Path) -> Path:
    """Snapshots of a training that ends near the weights of a network, with a change that dies out."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(5)
    weights = {name: value for name, value in net.state_dict().items() if value.is_floating_point()}
    change = {name: torch.randn_like(value) for name, value in weights.items()}
    for step in range(6):
        moved = {name: (weights[name] + 0.5**step * change[name]).contiguous() for name in weights}
        save_file(moved, folder / f"{step}.safetensors")
    return folder


NEEDED = {"kmp": "kmp:snapshots={snapshots}", "kgp": "kgp:snapshots={snapshots}"}
"""Criteria that do not work without settings."""


def with_needs(name: str, net: nn.Module, folder: Path) -> str:
    """A criterion with the settings that it does not work without, for a network."""
    if name not in NEEDED:
        return name
    return NEEDED[name].format(snapshots=write_snapshots(net, folder / "snapshots"))
