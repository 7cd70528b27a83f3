"""VGG for small images."""

from collections import OrderedDict

from torch import nn

from rlprune.models.blocks import conv, init_convs, scaled

CONVS_PER_STAGE = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
STAGE_CHANNELS = (64, 128, 256, 512, 512)


def vgg(depth: int, classes: int, width: float = 1.0) -> nn.Sequential:
    """VGG with batch norm in its CIFAR form: five stages of 3x3 convolutions, one linear layer.

    Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2014,
    arXiv:1409.1556, table 1 (A, B, D, E), with batch norm (Ioffe & Szegedy, 2015, arXiv:1502.03167) and a global
    average pool in place of the two hidden linear layers, as is common on 32-pixel images.

    Args:
        depth: 11, 13, 16 or 19 layers with weights in the original count.
        classes: number of outputs.
        width: factor on the channels of every convolution.

    Returns:
        A network of ``features`` and ``classifier`` for images (batch, 3, H, W) with H, W >= 32 pixels.
    """
    features: list[nn.Module] = []
    inputs = 3
    for channels, convs in zip(STAGE_CHANNELS, CONVS_PER_STAGE[depth], strict=True):
        outputs = scaled(channels, width)
        for _ in range(convs):
            features += [conv(inputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
        features.append(nn.MaxPool2d(2))
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
