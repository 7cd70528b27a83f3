"""Runtime importance: how active every channel is on real images, and how much that changes from image to image.

The per-image channel saliency is the global average of the feature map that the next layer reads, as in feature
boosting and suppression (Gao et al., 2019, arXiv 1810.05331) and the runtime predictor of Chen et al. (2020).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.graph.structure import WHOLE, Graph
from rlprune.utils.modules import evaluating


def channel_activity(module: nn.Module, graph: Graph, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variation of every channel's activation.

    Args:
        module: the dense network on the device of the images.
        graph: its structure.
        images: (N, C, H, W).

    Returns:
        Two (all groups' channels,) arrays: the mean over images of the mean absolute activation, averaged over all
        readers of the channel, and its standard deviation over images divided by that mean.
    """
    total = int(graph.sizes.sum())
    saliency, read = np.zeros((total, len(images))), np.zeros((total, 1))

    def record(slots: np.ndarray) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        mine = slots != WHOLE

        def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            values = inputs[0].detach().float().abs()
            # A linear layer's features stand last, a convolution's channels second.
            features = values if isinstance(layer, nn.Linear) else values.movedim(1, -1)
            means = features.flatten(1, -2).mean(1) if values.dim() > 2 else features
            np.add.at(saliency, slots[mine], means.T.cpu().double().numpy()[mine])
            np.add.at(read, slots[mine], 1)

        return hook

    layers = dict(module.named_modules())
    handles = [
        layers[axis.layer].register_forward_pre_hook(record(axis.slots))
        for axis in graph.axes
        if axis.side == "in" and axis.layer in layers
    ]
    try:
        with evaluating(module), torch.inference_mode():
            module(images)
    finally:
        for handle in handles:
            handle.remove()
    saliency /= np.maximum(read, 1)
    mean = saliency.mean(1)
    return mean, saliency.std(1) / np.maximum(mean, 1e-12)
