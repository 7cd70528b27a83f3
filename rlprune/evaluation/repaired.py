"""A network that is really cut and repaired for every plan, where recalibrated batch norm is not all that is asked."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.graph.structure import Graph
from rlprune.utils.memory import Chunks


class RepairedRunner:
    """Runs the smaller network that the user would get, as `rlprune.evaluation.sliced.SliceRunner` runs slices.

    Args:
        cut: kept channels, (all groups' channels,) bool -> the smaller, repaired network in eval mode.
        graph: structure of the dense network.
        chunk: images that are run at once; bounds memory. Where there is none, they become fewer.
        dtype: autocast to this type where the device has matrix units for it.
        tell: told that there are fewer.
    """

    def __init__(
        self,
        cut: Callable[[np.ndarray], nn.Module],
        graph: Graph,
        chunk: int = 250,
        dtype: torch.dtype | None = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.cut, self.graph, self.dtype = cut, graph, dtype
        self.chunks = Chunks(chunk, tell)

    def logits(self, kept: np.ndarray, images: Tensor) -> Tensor:
        """Output of the network for the kept channels, (N, classes) float32.

        Args:
            kept: (all groups' channels,) bool.
            images: (N, C, H, W).

        Raises:
            UserError: the network cannot be cut or repaired so, or there is no memory for a single image.
        """
        module = self.cut(kept)
        with torch.inference_mode(), torch.autocast(images.device.type, self.dtype, enabled=self.dtype is not None):
            return self.chunks(module, images)
