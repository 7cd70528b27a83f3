"""What a module leaves of its input when all that it adds to it is silent."""

from typing import Any

import pytest
import torch
from residual import Block, attention, basic, convnext, inverted
from torch import Tensor, nn

from rlprune.tracing.silence import what_remains


def test_an_activation_is_told_from_one_that_is_alike_around_zero() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.low, self.high = nn.Conv2d(2, 2, 1), nn.ReLU6(), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.high(x + self.conv(self.low(x)))

    assert what_remains(Net(), [torch.rand(1, 2, 4, 4)]) == "high"


@pytest.mark.parametrize("make", [basic, inverted, convnext, attention])
def test_against_blocks_whose_layers_are_zero(make: Any) -> None:
    """A branch of zeros adds nothing: what is left is what the block gives then."""
    block = make().eval()
    remains = what_remains(block, [torch.rand(1, 8, 4, 4)])
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    given = torch.randn(2, 8, 4, 4)
    expected = given.relu() if remains else given
    torch.testing.assert_close(block(given.clone()), expected, rtol=0, atol=0)


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_the_input_may_come_second_and_be_scaled(alpha: float) -> None:
    def forward(block: Any, x: Tensor) -> Tensor:
        return torch.add(block.conv(x), x, alpha=alpha)

    assert what_remains(Block(forward, conv=nn.Conv2d(8, 8, 1)), [torch.rand(1, 8, 4, 4)]) == (
        "" if alpha == 1 else None
    )


def test_a_module_that_fails_on_other_numbers_is_none() -> None:
    def forward(block: Any, x: Tensor) -> Tensor:
        if x.min() < 0:
            raise ValueError("an image has no negative numbers")
        return x + block.conv(x)

    assert what_remains(Block(forward, conv=nn.Conv2d(8, 8, 1)), [torch.rand(1, 8, 4, 4)]) is None
