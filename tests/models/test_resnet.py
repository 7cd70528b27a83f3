"""ResNet against published sizes, closed forms and the definition of a block."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from rlprune.models.resnet import DEPTHS, BasicBlock, resnet


@pytest.mark.parametrize(("depth", "published"), [(20, 272_474), (56, 855_770), (110, 1_730_714)])
def test_has_the_published_size(depth: int, published: int) -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in resnet(depth, 10).parameters()) == published


@pytest.mark.parametrize("depth", DEPTHS)
def test_depth_counts_convolutions_and_linear_but_not_projections(depth: int) -> None:
    with torch.device("meta"):
        modules = list(resnet(depth, 10).modules())
    kernels = [module.kernel_size[0] for module in modules if isinstance(module, nn.Conv2d)]
    assert kernels.count(3) + 1 == depth
    assert kernels.count(1) == 2


def test_resnet56_costs_the_published_multiplications() -> None:
    with torch.device("meta"):
        model, images = resnet(56, 10).eval(), torch.empty(1, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        model(images)
    # A 3x3 convolution from c to c channels costs the same in every stage; the first of a later stage costs half.
    full = 9 * 16 * 16 * 32**2
    by_hand = 9 * 3 * 16 * 32**2 + (18 + 17 + 17) * full + 2 * full // 2 + 2 * 16 * 32 * 16**2 + 640
    assert counter.get_total_flops() // 2 == by_hand
    assert by_hand == pytest.approx(125.5e6, rel=0.005)


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(4, 4, 1), (4, 8, 2), (4, 8, 1), (4, 4, 2)])
def test_block_is_branch_plus_shortcut(inputs: int, outputs: int, stride: int) -> None:
    torch.manual_seed(0)
    block = BasicBlock(inputs, outputs, stride).eval()
    x = torch.randn(2, inputs, 8, 8)
    # Fresh batch norms in eval mode divide by sqrt(1 + eps) and nothing else.
    gain = (1 + 1e-5) ** -0.5
    hidden = (functional.conv2d(x, block.conv1.weight, stride=stride, padding=1) * gain).relu()
    branch = functional.conv2d(hidden, block.conv2.weight, padding=1) * gain
    shortcut = x
    if (inputs, stride) != (outputs, 1):
        shortcut = functional.conv2d(x, block.get_parameter("downsample.0.weight"), stride=stride) * gain
    torch.testing.assert_close(block(x), (branch + shortcut).relu())


@pytest.mark.parametrize("width", [0.01, 0.25, 0.5, 2.0])
def test_width_multiplies_every_stage(width: int) -> None:
    model = resnet(20, 10, width)
    stages = [model.get_parameter(f"{name}.0.conv2.weight").shape for name in ("layer1", "layer2", "layer3")]
    expected = [max(1, round(channels * width)) for channels in (16, 32, 64)]
    assert stages == [(count, count, 3, 3) for count in expected]
    assert model.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_names_are_those_of_torchvision() -> None:
    from torchvision.models import ResNet
    from torchvision.models.resnet import BasicBlock as TheirBlock

    theirs = ResNet(TheirBlock, [3, 3, 3, 1]).state_dict()
    assert {name for name in theirs if not name.startswith("layer4")} == set(resnet(20, 10).state_dict())


@pytest.mark.parametrize("size", [28, 33, 96])
def test_images_of_any_size_pass(size: int) -> None:
    assert resnet(20, 5, 0.25).eval()(torch.zeros(2, 3, size, size)).shape == (2, 5)
