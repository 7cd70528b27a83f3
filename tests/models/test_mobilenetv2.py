"""MobileNetV2 against its published size and against torchvision's ImageNet form."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rlprune.models.mobilenetv2 import STAGES, InvertedResidual, mobilenetv2


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def test_has_the_published_size() -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in mobilenetv2(10).parameters()) == 2_296_922


def test_differs_from_torchvision_by_projections_and_the_first_expansion() -> None:
    from torchvision.models import mobilenet_v2

    with torch.device("meta"):
        ours, theirs = mobilenetv2(10), mobilenet_v2(num_classes=10)
    projections = [(32, 16), (16, 24), (64, 96), (160, 320)]
    extra = [torch.Size((outputs, inputs, 1, 1)) for inputs, outputs in [(32, 32), *projections]]
    shapes = sorted([conv.weight.shape for conv in convolutions(theirs)] + extra)
    assert sorted(conv.weight.shape for conv in convolutions(ours)) == shapes


def test_costs_the_multiplications_of_its_table() -> None:
    with torch.device("meta"):
        model, images = mobilenetv2(10).eval(), torch.empty(1, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        model(images)
    side, inputs, by_hand = 32, 32, 27 * 32 * 32**2
    for expansion, outputs, blocks, first in STAGES:
        for stride in (first, *(1,) * (blocks - 1)):
            hidden = expansion * inputs
            by_hand += inputs * hidden * side**2
            side //= stride
            by_hand += (9 * hidden + hidden * outputs) * side**2
            by_hand += inputs * outputs * side**2 if stride == 1 and inputs != outputs else 0
            inputs = outputs
    assert side == 4
    assert counter.get_total_flops() // 2 == by_hand + 320 * 1280 * 4**2 + 12_800


def test_block_keeps_its_input_in_the_sum() -> None:
    block = InvertedResidual(6, 6, 2, 1).eval()
    nn.init.zeros_(block.conv3.weight)
    x = torch.randn(1, 6, 5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block(x), x)


@pytest.mark.parametrize(("width", "last"), [(0.01, 1280), (0.5, 1280), (1.5, 1920)])
def test_width_spares_the_last_convolution(width: float, last: int) -> None:
    model = mobilenetv2(10, width).eval()
    widths = [conv.out_channels for conv in convolutions(model)]
    assert widths[0] == max(1, round(32 * width))
    assert widths[-1] == last
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
