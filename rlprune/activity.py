"""Runtime importance: how active every channel is on real images, and how much that changes from image to image.

The per-image channel saliency is the global average of the feature map that the next layer reads, as in feature
boosting and suppression (Gao et al., 2019, arXiv 1810.05331) and the runtime predictor of Chen et al. (2020).
"""

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.graph import Graph


def channel_activity(module: nn.Module, graph: Graph, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variation of every channel's activation.

    Args:
        module: the dense network on the device of the images.
        graph: its structure.
        images: (N, C, H, W).

    Returns:
        Two (all groups' channels,) arrays: the mean over images of the mean absolute activation, and its standard
        deviation over images divided by that mean.
    """
    total = int(graph.sizes.sum())
    first, second, seen = np.zeros(total), np.zeros(total), np.zeros(total)
    axes = {axis.layer: axis for axis in graph.axes if axis.side == "in"}

    def record(name: str) -> object:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            values = inputs[0].detach().float().abs()
            # A linear layer's features stand last, a convolution's channels second.
            saliency = values.flatten(2).mean(2) if values.dim() > 2 else values
            slots = axes[name].slots
            mine = slots >= 0
            per_image = saliency[:, : len(slots)].cpu().double().numpy()[:, mine]
            mean, deviation = per_image.mean(0), per_image.std(0)
            np.add.at(first, slots[mine], mean)
            np.add.at(second, slots[mine], deviation)
            np.add.at(seen, slots[mine], 1)

        return hook

    handles = [
        module.get_submodule(name).register_forward_pre_hook(record(name))  # type: ignore[arg-type]
        for name in axes
    ]
    training = module.training
    try:
        with torch.inference_mode():
            module.eval()(images)
    finally:
        module.train(training)
        for handle in handles:
            handle.remove()
    seen = np.maximum(seen, 1)
    return first / seen, second / np.maximum(first, 1e-12)
