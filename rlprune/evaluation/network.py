"""A dense network that was traced, with its images."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.cost.exact import Cost
from rlprune.data.dataset import Dataset
from rlprune.graph.structure import Graph
from rlprune.graph.surgery import prune


@dataclass
class PreparedNetwork:
    """A network, its structure and the images it works on: what evaluations need.

    Attributes:
        data: the images.
        module: the dense network on `device`, in eval mode.
        network: how to build it again: model, args, classes, image size, channels.
        graph: groups and index maps.
        cost: MACs and parameters.
        device: where everything runs.
    """

    data: Dataset
    module: nn.Module
    network: dict[str, Any]
    graph: Graph
    cost: Cost
    device: torch.device
    _read: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)

    def calibration(self) -> tuple[Tensor, Tensor]:
        """Calibration images and labels on the device."""
        return self._whole("calibration")

    def search(self) -> tuple[Tensor, Tensor]:
        """Search images and labels on the device."""
        return self._whole("search")

    def cut(self, kept: np.ndarray) -> nn.Module:
        """A physically smaller copy of the network, of (all groups' channels,) bool, True where a channel stays."""
        return prune(self.module, self.graph, kept)

    def _whole(self, split: str) -> tuple[Tensor, Tensor]:
        # Criteria, activities and every recalibration ask for the same ones, which may have to be read from files.
        if split not in self._read:
            images, labels = getattr(self.data, split).take(torch.arange(len(getattr(self.data, split))))
            images = images.to(self.device, memory_format=torch.channels_last)
            self._read[split] = images, labels.to(self.device)
        return self._read[split]
