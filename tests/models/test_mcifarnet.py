"""M-CifarNet, against the published counts."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rlprune.models.registry import build_model


def test_it_is_the_published_network() -> None:
    # Eight convolutions of 174.3 M MACs and 1.29 M weights in all; the first has no padding.
    module = build_model("mcifarnet", classes=10, image_size=32)
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [64, 64, 128, 128, 128, 192, 192, 192]
    weights, sides = [layer.weight.numel() for layer in convolutions], (30, 30, 15, 15, 15, 8, 8, 8)
    macs = sum(count * side**2 for count, side in zip(weights, sides, strict=True))
    assert round(macs / 1e6, 1) == 174.3
    assert round(sum(weights) / 1e6, 2) == 1.29
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(torch.zeros(1, 3, 32, 32))
    assert counter.get_total_flops() // 2 == macs + 192 * 10
