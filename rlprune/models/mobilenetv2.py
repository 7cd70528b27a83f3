"""MobileNetV2 for small images."""

from collections import OrderedDict

from torch import Tensor, nn

from rlprune.models.blocks import conv, init_convs, scaled

# expansion, channels, blocks, stride of the first block
STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class InvertedResidual(nn.Module):
    """Widen by a 1x1 convolution, filter each channel on its own, narrow by a 1x1 convolution without ReLU."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = expansion * inputs
        self.conv1 = conv(inputs, hidden, 1)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = conv(hidden, hidden, 3, stride, groups=hidden)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv3 = conv(hidden, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module | None = None
        if stride == 1:
            same = inputs == outputs
            self.shortcut = nn.Identity() if same else nn.Sequential(conv(inputs, outputs, 1), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, H, W) to (batch, outputs, H / stride, W / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return out if self.shortcut is None else out + self.shortcut(x)


def mobilenetv2(classes: int, width: float = 1.0) -> nn.Sequential:
    """MobileNetV2 in its CIFAR form: the stem and the first two stages keep the resolution.

    Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018, arXiv:1801.04381, table 2, with
    what the common re-implementation for CIFAR (kuangliu/pytorch-cifar) changes: the strides, ReLU for ReLU6, and a
    projection shortcut wherever the resolution stays but the channels change. Its names of modules are kept, so
    that its weights load.

    Args:
        classes: number of outputs.
        width: factor on the channels; the last 1x1 convolution has at least 1280 channels (section 6.1 of the paper).

    Returns:
        A network for images (batch, 3, H, W) of any size.
    """
    stem, last = scaled(32, width), scaled(1280, max(1.0, width))
    inputs, blocks = stem, []
    for expansion, channels, count, first in STAGES:
        outputs = scaled(channels, width)
        for stride in (first, *(1,) * (count - 1)):
            blocks.append(InvertedResidual(inputs, outputs, expansion, stride))
            inputs = outputs
    model = nn.Sequential(
        OrderedDict(
            conv1=conv(3, stem),
            bn1=nn.BatchNorm2d(stem),
            relu1=nn.ReLU(),
            layers=nn.Sequential(*blocks),
            conv2=conv(inputs, last, 1),
            bn2=nn.BatchNorm2d(last),
            relu2=nn.ReLU(),
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            linear=nn.Linear(last, classes),
        )
    )
    init_convs(model)
    return model
