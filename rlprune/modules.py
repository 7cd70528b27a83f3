"""What is asked of any network's modules."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def is_depthwise(layer: nn.Module) -> bool:
    """Whether every output channel of a convolution reads just its own input channel."""
    return isinstance(layer, CONVOLUTIONS) and layer.groups == layer.in_channels == layer.out_channels > 1


def axis_size(layer: nn.Module, side: str) -> int:
    """How many channels a convolution, linear layer or batch norm has on its side ``"out"`` or ``"in"``."""
    # Not by the weight: a batch norm may have none, and a parametrised layer hides it.
    if isinstance(layer, NORMS):
        return layer.num_features
    if isinstance(layer, nn.Linear):
        return layer.out_features if side == "out" else layer.in_features
    assert isinstance(layer, CONVOLUTIONS)
    return layer.out_channels if side == "out" else layer.in_channels


@contextmanager
def evaluating(module: nn.Module) -> Iterator[nn.Module]:
    """Within, the network is in eval mode; afterwards every module is in the mode that it was in."""
    modes = {part: part.training for part in module.modules()}
    try:
        yield module.eval()
    finally:
        for part, training in modes.items():
            part.training = training
