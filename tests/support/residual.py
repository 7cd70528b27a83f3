"""Small networks of residual blocks, and what is left of them without some, made by hand."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PIXELS = 8
EXAMPLE = torch.zeros(1, 3, PIXELS, PIXELS)


class Block(nn.Module):
    """What is added to the input, and what follows the sum."""

    def __init__(self, forward: Any, **parts: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.run(self, x)
        return found


def network(*blocks: nn.Module, width: int = 8) -> nn.Sequential:
    """A stem, blocks, and a classifier of 4 classes."""
    ends = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4)]
    net = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.Sequential(*blocks), *ends)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1, 0.3)
            nn.init.normal_(part.bias, 0, 0.3)
    return net.eval()


def basic(width: int = 8, inner: int = 6, act: nn.Module | None = None) -> Block:
    """ResNet's, with an activation after the sum."""

    def forward(block: Any, x: Tensor) -> Tensor:
        out = block.norm2(block.conv2(block.act(block.norm1(block.conv1(x)))))
        out += x
        return block.act(out)

    return Block(
        forward,
        conv1=nn.Conv2d(width, inner, 3, padding=1, bias=False),
        norm1=nn.BatchNorm2d(inner),
        conv2=nn.Conv2d(inner, width, 3, padding=1),
        norm2=nn.BatchNorm2d(width),
        act=act or nn.ReLU(inplace=True),
    )


def inverted(width: int = 8, inner: int = 12, squeezed: int = 3) -> Block:
    """EfficientNet's: a depthwise convolution, squeeze-and-excitation, nothing after the sum."""

    def forward(block: Any, x: Tensor) -> Tensor:
        y = F.silu(block.deep(F.silu(block.expand(x))))
        y = y * torch.sigmoid(block.excite(F.relu(block.squeeze(y.mean((2, 3), keepdim=True)))))
        return x + block.norm(block.contract(y))

    return Block(
        forward,
        expand=nn.Conv2d(width, inner, 1),
        deep=nn.Conv2d(inner, inner, 3, padding=1, groups=inner),
        squeeze=nn.Conv2d(inner, squeezed, 1),
        excite=nn.Conv2d(squeezed, inner, 1),
        contract=nn.Conv2d(inner, width, 1, bias=False),
        norm=nn.BatchNorm2d(width),
    )


def convnext(width: int = 8, inner: int = 12) -> Block:
    """ConvNeXt's: a depthwise convolution and a norm on the stream's own channels, which is also scaled."""

    def forward(block: Any, x: Tensor) -> Tensor:
        y = block.norm(block.deep(x).permute(0, 2, 3, 1))
        y = block.contract(F.gelu(block.expand(y))) * block.scale
        return x.add(y.permute(0, 3, 1, 2), alpha=0.5)

    block = Block(
        forward,
        deep=nn.Conv2d(width, width, 3, padding=1, groups=width),
        norm=nn.LayerNorm(width),
        expand=nn.Linear(width, inner),
        contract=nn.Linear(inner, width),
    )
    block.scale = nn.Parameter(torch.rand(width))
    return block


def attention(width: int = 8, inner: int = 12, q: int = 4) -> Block:
    """A transformer's: two sums, of which the first is of attention with its products of activations."""

    def forward(block: Any, x: Tensor) -> Tensor:
        y = x.flatten(2).transpose(1, 2)
        z = block.norm1(y)
        weights = (block.query(z) @ block.key(z).transpose(1, 2)).softmax(-1)
        y = y + block.out(weights @ block.value(z))
        y = y + block.contract(F.gelu(block.expand(block.norm2(y))))
        return y.transpose(1, 2).reshape(x.shape)

    return Block(
        forward,
        norm1=nn.LayerNorm(width),
        query=nn.Linear(width, q),
        key=nn.Linear(width, q),
        value=nn.Linear(width, q),
        out=nn.Linear(q, width),
        norm2=nn.LayerNorm(width),
        expand=nn.Linear(width, inner),
        contract=nn.Linear(inner, width),
    )


def by_hand(net: nn.Sequential, parts: Mapping[int, nn.Module]) -> nn.Sequential:
    """The network with other parts in the place of blocks."""
    smaller = copy.deepcopy(net)
    for place, part in parts.items():
        smaller[1][place] = part
    return smaller
