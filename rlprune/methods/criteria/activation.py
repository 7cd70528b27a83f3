"""Activations of the channels (Molchanov et al., 2017, arXiv 1611.06440)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.graph.structure import Graph
from rlprune.methods.criteria.base import Criterion, ScoringContext
from rlprune.methods.criteria.base_reads import by_image, over_chunks, watching
from rlprune.utils.modules import evaluating


@dataclass(frozen=True)
class Activation(Criterion):
    """Mean over images of the mean |activation| that the next layers read, or how much it varies over images.

    Paper: Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference, 2017,
    arXiv 1611.06440

    Attributes:
        of: mean, or std, the standard deviation over images of the mean |activation| of each: a channel that says the
            same of all images tells them not apart.
    """

    needs: ClassVar[tuple[str, ...]] = ("images",)
    of: Literal["mean", "std"] = "mean"

    def score(self, module: nn.Module, graph: Graph, context: ScoringContext) -> np.ndarray:
        """See `Criterion.score`; UserError where no layer reads the channels of a group."""
        activity = over_chunks(context.images, lambda parts: _activity(module, graph, context.images, parts))
        return activity.mean(1) if self.of == "mean" else activity.std(1)


def _activity(module: nn.Module, graph: Graph, images: Tensor, parts: list[slice]) -> np.ndarray:
    """(all groups' channels, images) mean |activation| over all places of an image, and all layers that read it."""
    total, read = np.zeros((int(graph.sizes.sum()), len(images))), np.zeros((int(graph.sizes.sum()), len(images)))
    with evaluating(module), torch.inference_mode():
        for part in parts:
            number = len(images[part])

            def look(
                layer: nn.Module, features: Tensor, slots: np.ndarray, of: slice = part, rows: int = number
            ) -> None:
                means = by_image(layer, features.abs(), rows).float().mean(1).cpu().double().numpy()
                mine = slots >= 0
                np.add.at(total[:, of], slots[mine], means.T[mine])
                np.add.at(read[:, of], slots[mine], 1)

            with watching(module, graph, look, "activation"):
                module(images[part])
    return total / read
