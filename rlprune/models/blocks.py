"""What the CIFAR networks have in common: the width rule, a convolution without bias, the initialisation."""

from torch import nn


def scaled(channels: int, width: float) -> int:
    """``channels`` times the width multiplier, rounded, and at least one channel."""
    return max(1, round(channels * width))


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A same-padded convolution; no bias, since the batch norm behind it would cancel one."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


def init_convs(model: nn.Module) -> None:
    """Draw every convolution anew from torch's global generator.

    He-normal with the fan of the outputs (He et al., "Delving Deep into Rectifiers", 2015, arXiv:1502.01852).
    """
    for module in model.modules():
        # On the meta device, which holds no numbers, drawing would load PyTorch's compiler: two seconds.
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
