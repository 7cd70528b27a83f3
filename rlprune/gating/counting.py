"""A gated network as it is measured: in full precision, with a record of what ran."""

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.gating.network import GatedNetwork


class CountingNetwork(nn.Module):
    """Runs under masks and remembers how many channels every image took.

    In full precision whatever surrounds it, as it is deployed: in half of it, decisions that are close come out
    otherwise, for a few images in a hundred.

    Args:
        gated: with `runtime`.
    """

    def __init__(self, gated: GatedNetwork) -> None:
        super().__init__()
        self.gated = gated
        self._ran: list[np.ndarray] = []

    def forward(self, images: Tensor) -> Tensor:
        """(images, classes) logits."""
        with torch.autocast(images.device.type, enabled=False):
            logits: Tensor = self.gated(images)
        self._ran.append(self.gated.counts())
        return logits

    def counts(self) -> np.ndarray:
        """(images, groups) channels that ran for all images so far."""
        return np.concatenate(self._ran)
