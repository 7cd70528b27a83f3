"""ResNet for small images."""

from collections import OrderedDict

from torch import Tensor, nn

from rlprune.models.blocks import conv, init_convs, scaled

DEPTHS = (20, 32, 44, 56, 110)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(inputs, outputs, stride=stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, H, W) to (batch, outputs, H / stride, W / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + self.downsample(x))


def stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    """``blocks`` blocks of equal width; the first one takes the stride."""
    rest = (BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1))
    return nn.Sequential(BasicBlock(inputs, outputs, stride), *rest)


def resnet(depth: int, classes: int, width: float = 1.0) -> nn.Sequential:
    """ResNet in its CIFAR form: three stages of 16, 32 and 64 channels, (depth - 2) / 6 blocks each.

    He et al., "Deep Residual Learning for Image Recognition", 2015, arXiv:1512.03385, section 4.2, with projection
    shortcuts (option B) as common re-implementations have it. Modules are named as in torchvision's ResNet, so
    that published weights of this form load.

    Args:
        depth: 6 n + 2 layers, such as 20, 32, 44, 56 or 110.
        classes: number of outputs.
        width: factor on the channels of every convolution.

    Returns:
        A network for images (batch, 3, H, W) of any size.
    """
    blocks = (depth - 2) // 6
    narrow, middle, wide = (scaled(channels, width) for channels in (16, 32, 64))
    model = nn.Sequential(
        OrderedDict(
            conv1=conv(3, narrow),
            bn1=nn.BatchNorm2d(narrow),
            relu=nn.ReLU(),
            layer1=stage(narrow, narrow, blocks, stride=1),
            layer2=stage(narrow, middle, blocks, stride=2),
            layer3=stage(middle, wide, blocks, stride=2),
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(wide, classes),
        )
    )
    init_convs(model)
    return model
