"""What evaluations need to know of a network and its images."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rlprune.cost.exact import Cost
from rlprune.data.dataset import Dataset
from rlprune.graph.structure import Graph


class PreparedNetwork(Protocol):
    """A dense network that was traced, with its images; `rlprune.workloads.workload.Workload` is one.

    Attributes:
        data: the images.
        module: the dense network on `device`, in eval mode.
        network: how to build it again: model, args, classes, image size.
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

    def calibration(self) -> tuple[Tensor, Tensor]:
        """Calibration images and labels on the device."""
