"""VGG against published sizes and against convolution arithmetic by hand."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rlprune.models.vgg import vgg


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, size: int) -> int:
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, size, size, device="meta"))
    return counter.get_total_flops() // 2


def test_vgg16_has_the_published_size_less_the_biases() -> None:
    # 14,728,266 is the common count of VGG-16 with batch norm and one linear layer; its 13 convolutions have a bias.
    biases = 2 * 64 + 2 * 128 + 3 * 256 + 6 * 512
    with torch.device("meta"):
        assert parameters(vgg(16, 10)) == 14_728_266 - biases


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_convolutions_are_those_of_torchvision(depth: int) -> None:
    from torchvision import models

    with torch.device("meta"):
        ours, theirs = vgg(depth, 10), models.get_model(f"vgg{depth}_bn", weights=None)

    def shapes(model: nn.Module) -> list[torch.Size]:
        return [module.weight.shape for module in model.modules() if isinstance(module, nn.Conv2d)]

    assert shapes(ours) == shapes(theirs)


def test_vgg16_costs_the_published_multiplications() -> None:
    with torch.device("meta"):
        model = vgg(16, 10).eval()
    # Sum over the layers of 9 x inputs x outputs x pixels, by hand, and 512 x 10; published as 313 M.
    pairs = [(3, 64, 32), (64, 64, 32), (64, 128, 16), (128, 128, 16), (128, 256, 8), *[(256, 256, 8)] * 2]
    pairs += [(256, 512, 4), *[(512, 512, 4)] * 2, *[(512, 512, 2)] * 3]
    by_hand = sum(9 * inputs * outputs * side**2 for inputs, outputs, side in pairs) + 5120
    assert macs(model, 32) == by_hand
    assert by_hand == pytest.approx(313e6, rel=0.005)


def test_width_multiplies_every_convolution() -> None:
    full, quarter, one = (vgg(11, 10, width) for width in (1.0, 0.25, 1e-6))

    def channels(model: nn.Module) -> list[int]:
        return [module.out_channels for module in model.modules() if isinstance(module, nn.Conv2d)]

    assert channels(quarter) == [count // 4 for count in channels(full)]
    assert set(channels(one)) == {1}


@pytest.mark.parametrize("size", [32, 48, 63, 64])
def test_small_images_of_any_size_pass(size: int) -> None:
    assert vgg(13, 7, 0.05).eval()(torch.zeros(2, 3, size, size)).shape == (2, 7)


def test_convolutions_start_he_normal() -> None:
    torch.manual_seed(0)
    weight = vgg(16, 10).get_parameter("features.10.weight")
    assert weight.std().item() == pytest.approx((2 / (9 * weight.shape[0])) ** 0.5, rel=0.02)


def test_names_are_readable() -> None:
    names = dict(vgg(16, 10, 0.1).named_modules())
    assert {"features", "features.0", "classifier"} <= set(names)
