"""M-CifarNet, the network on which channels were first chosen at run time."""

from collections import OrderedDict

from torch import nn

from rlprune.models.blocks import conv, init_convs, scaled

LAYERS = ((64, 1), (64, 1), (128, 2), (128, 1), (128, 1), (192, 2), (192, 1), (192, 1))
"""Channels and stride of every convolution."""


def mcifarnet(classes: int, width: float = 1.0) -> nn.Sequential:
    """Eight 3x3 convolutions with batch norm and one linear layer; 174 M MACs and 1.3 M parameters at 32 pixels.

    Gao et al., "Dynamic Channel Pruning: Feature Boosting and Suppression", 2018, arXiv 1810.05331; the first
    convolution has no padding.

    Args:
        classes: number of outputs.
        width: factor on the channels of every convolution.
    """
    features: list[nn.Module] = []
    inputs = 3
    for number, (channels, stride) in enumerate(LAYERS):
        outputs = scaled(channels, width)
        layer = conv(inputs, outputs, stride=stride)
        if number == 0:
            layer.padding = (0, 0)
        features += [layer, nn.BatchNorm2d(outputs), nn.ReLU()]
        inputs = outputs
    model = nn.Sequential(
        OrderedDict(
            features=nn.Sequential(*features),
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Linear(inputs, classes),
        )
    )
    init_convs(model)
    return model
