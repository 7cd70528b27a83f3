"""The networks of scripts/checks/networks.py, and what is known of each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Network:
    """How a network is built and what can be asked of it.

    Attributes:
        full: side of the images that it is made for, pixels.
        small: side of the images in a quick pass; None where the network is too large for one.
        args: of its constructor.
        size_arg: the argument that takes the side of the images, where there is one.
        mixes: what computes statistics over channels: removing one then differs from disconnecting it.
        uncounted: why torch's own counter does not know its multiply-accumulates.
        keeps: the smallest plan keeps at most this fraction of the MACs; 1 where everything is refused.
    """

    full: int = 224
    small: int | None = 64
    args: Mapping[str, Any] = field(default_factory=dict)
    size_arg: str = ""
    mixes: str = ""
    uncounted: str = ""
    keeps: float = 0.1


AUX = {"aux_logits": True, "init_weights": False}
LAYER_NORM, GROUP_NORM, ATTENTION = "layer norm", "group norm", "attention"
CHANNEL_CONV, STANDARDISED = "a convolution across channels", "weights standardised over their inputs"

TORCHVISION = {
    "alexnet": Network(),
    "vgg11": Network(small=None, args={"init_weights": False}),
    "vgg11_bn": Network(small=None, args={"init_weights": False}),
    "vgg16_bn": Network(small=None, args={"init_weights": False}),
    **dict.fromkeys(("resnet18", "resnet50", "resnext50_32x4d", "densenet121"), Network()),
    "wide_resnet50_2": Network(small=None),
    "densenet201": Network(small=None),
    "googlenet": Network(args=AUX),
    # Smaller images leave its auxiliary head nothing to pool.
    "inception_v3": Network(full=299, small=299, args=AUX),
    **dict.fromkeys(("squeezenet1_0", "squeezenet1_1", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0"), Network()),
    **dict.fromkeys(("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "mnasnet0_5"), Network()),
    **dict.fromkeys(("efficientnet_b0", "efficientnet_v2_s", "regnet_x_400mf", "regnet_y_400mf"), Network()),
    "convnext_tiny": Network(mixes=LAYER_NORM),
    "vit_b_16": Network(size_arg="image_size", mixes=LAYER_NORM, keeps=0.4),
    "swin_t": Network(mixes=LAYER_NORM, keeps=0.75),
    "swin_v2_t": Network(mixes=LAYER_NORM, keeps=0.75),
    "maxvit_t": Network(small=None, mixes=LAYER_NORM, keeps=0.3),
}
TIMM = {
    # Residual networks and what has been added to them.
    **dict.fromkeys(("resnet10t", "resnet26d", "resnetv2_18", "resnext26ts", "gernet_s"), Network()),
    **dict.fromkeys(("seresnet18", "legacy_seresnext26_32x4d", "resnest14d", "tresnet_m"), Network()),
    "res2net50_14w_8s": Network(keeps=0.2),
    "skresnet18": Network(),
    # Its blur has the number of channels built in.
    "resnetblur18": Network(keeps=0.2),
    "ecaresnet26t": Network(mixes=CHANNEL_CONV, keeps=0.2),
    "eca_resnet33ts": Network(mixes=CHANNEL_CONV),
    "gcresnet33ts": Network(mixes=LAYER_NORM),
    # Weights that are computed from parameters before every use.
    "resnetv2_50x1_bit": Network(small=None, mixes=STANDARDISED, keeps=1),
    "nf_resnet26": Network(small=None, mixes=STANDARDISED, keeps=1),
    "nf_regnet_b0": Network(mixes=STANDARDISED, keeps=0.95),
    # Concatenations, splits and several branches.
    **dict.fromkeys(("cspresnet50", "cspdarknet53", "cs3darknet_s", "cspnext_tiny", "darknet17"), Network()),
    **dict.fromkeys(("dla34", "dla46x_c", "dpn68", "hrnet_w18_small", "selecsls42"), Network()),
    "densenetblur121d": Network(small=None),
    **dict.fromkeys(("vovnet39a", "ese_vovnet19b_dw", "hgnetv2_b0", "xception41"), Network()),
    "inception_v4": Network(full=299, small=None),
    "inception_resnet_v2": Network(full=299, small=None),
    # Depthwise separable and found by search.
    **dict.fromkeys(("ghostnet_100", "semnasnet_050", "hardcorenas_a", "fbnetc_100"), Network()),
    # Splits into given numbers of channels.
    "mixnet_s": Network(keeps=0.75),
    **dict.fromkeys(("lcnet_050", "tinynet_e", "rexnet_100", "efficientnet_lite0", "tf_efficientnet_b0"), Network()),
    **dict.fromkeys(("regnetz_005", "regnetv_040", "mobilenetv4_conv_small_050", "starnet_s050"), Network()),
    # Branches that are to be merged after training.
    **dict.fromkeys(("repvgg_a0", "mobileone_s0", "repghostnet_050", "repvit_m0_9"), Network()),
    "fastvit_t8": Network(full=256),
    # After the transformers.
    "convmixer_768_32": Network(),
    "convnext_atto": Network(mixes=LAYER_NORM),
    "convnextv2_atto": Network(mixes=LAYER_NORM),
    "inception_next_atto": Network(mixes=LAYER_NORM),
    "mambaout_femto": Network(mixes=LAYER_NORM),
    "rdnet_tiny": Network(mixes=LAYER_NORM),
    "poolformer_s12": Network(mixes=GROUP_NORM, keeps=0.2),
    "focalnet_tiny_srf": Network(mixes=LAYER_NORM),
    "mixer_s32_224": Network(size_arg="img_size", mixes=LAYER_NORM),
    # With attention.
    "botnet26t_256": Network(full=256, size_arg="img_size", mixes=ATTENTION),
    "caformer_s18": Network(mixes=LAYER_NORM, keeps=0.3),
    "davit_tiny": Network(mixes=LAYER_NORM, keeps=0.7),
    "edgenext_xx_small": Network(full=256, mixes=LAYER_NORM, keeps=0.25),
    # Its attention bias has the number of patches built in.
    "efficientformer_l1": Network(small=224, mixes=ATTENTION),
    "efficientvit_b0": Network(mixes=ATTENTION),
    "levit_128s": Network(size_arg="img_size", mixes=ATTENTION),
    "mobilevit_xxs": Network(full=256, mixes=LAYER_NORM),
    "mobilevitv2_050": Network(full=256, mixes=GROUP_NORM),
    "shvit_s1": Network(mixes=GROUP_NORM),
    "swiftformer_xs": Network(mixes=ATTENTION),
    "tiny_vit_5m_224": Network(mixes=LAYER_NORM, keeps=0.3),
    "visformer_tiny": Network(size_arg="img_size", mixes=ATTENTION),
    "vit_tiny_patch16_224": Network(size_arg="img_size", mixes=LAYER_NORM),
}
OTHERS = dict.fromkeys(("lraspp_mobilenet_v3_large", "fcn_resnet50", "resnet18_fpn"), Network())
"""Factories in this file: segmentation and detection, whose outputs are no class scores."""

KINDS = {
    **dict.fromkeys(("branches", "looked_up", "caching", "instance_norm", "frozen"), Network()),
    **dict.fromkeys(("recurrent_convolution", "resized_positions"), Network()),
    **dict.fromkeys(("masked", "weight_norm"), Network(keeps=0.3)),
    **dict.fromkeys(("experts", "scripted"), Network(keeps=1)),
    "memory": Network(uncounted="torch does not count LSTMs", keeps=1),
    "prototypes": Network(mixes="sums over channels"),
    "own_norm": Network(mixes=LAYER_NORM),
    "normalised": Network(mixes="lengths over channels"),
}
"""Factories in kinds.py."""

NETWORKS: dict[str, Network] = {
    **{f"torchvision/{name}": network for name, network in TORCHVISION.items()},
    **{f"timm/{name}": network for name, network in TIMM.items()},
    **{f"zoo.py:{name}": network for name, network in OTHERS.items()},
    **{f"kinds.py:{name}": network for name, network in KINDS.items()},
}


def lraspp_mobilenet_v3_large(num_classes: int) -> nn.Module:
    """Segmentation; returns a dict."""
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large as build

    return build(weights=None, weights_backbone=None, num_classes=num_classes)


def fcn_resnet50(num_classes: int) -> nn.Module:
    """Segmentation with an auxiliary head; returns a dict."""
    from torchvision.models.segmentation import fcn_resnet50 as build

    return build(weights=None, weights_backbone=None, num_classes=num_classes, aux_loss=True)


def resnet18_fpn() -> nn.Module:
    """A detector's backbone with its pyramid of features; returns an ordered dict."""
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    return resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5)


SLOW = {
    *(f"torchvision/{name}" for name in ("swin_v2_t", "inception_v3", "alexnet", "vit_b_16", "efficientnet_v2_s")),
    *(f"timm/{name}" for name in ("tresnet_m", "mobileone_s0", "convmixer_768_32", "cspdarknet53", "caformer_s18")),
    *("timm/xception41", "timm/cspresnet50", "zoo.py:fcn_resnet50"),
}
"""They take a third of the time of all, and have a smaller relative each: the tests leave them to the script."""
