"""Criteria score channels: which ones go. What they share."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from rlprune import registry
from rlprune.errors import UserError
from rlprune.graph.structure import Graph
from rlprune.tasks.base import Task
from rlprune.tasks.classification import CLASSIFICATION
from rlprune.utils.modules import unwrapped


@dataclass(frozen=True)
class ScoringContext:
    """What a criterion may look at besides the network.

    Attributes:
        images: (N, C, H, W) calibration images.
        labels: their labels.
        seed: for criteria that draw.
        task: whose loss they are about.
    """

    images: Tensor
    labels: Tensor
    seed: int = 0
    task: Task = CLASSIFICATION


class Criterion(Protocol):
    """Scores channels; a frozen dataclass whose fields are its settings.

    Attributes:
        needs: what it looks at besides weights, in words.
    """

    needs: ClassVar[tuple[str, ...]]

    @abstractmethod
    def score(self, module: nn.Module, graph: Graph, context: ScoringContext) -> np.ndarray:
        """Score every channel of every group.

        Args:
            module: the dense network in eval mode.
            graph: its structure.
            context: images, labels, seed.

        Returns:
            (all groups' channels,) float64 scores; the highest of a group stay.

        Raises:
            UserError: the criterion does not apply to this network.
        """


def score_channels(
    name: str, module: nn.Module, graph: Graph, batch: tuple[Tensor, Tensor], seed: int = 0
) -> np.ndarray:
    """Score every channel of every group by a criterion that is named.

    Args:
        name: of a criterion, maybe with settings: ``taylor:order=2``.
        module: the dense network in eval mode.
        graph: its structure.
        batch: (N, C, H, W) images and (N,) labels, for criteria that look at data.
        seed: for criteria that draw.

    Returns:
        (all groups' channels,) float64 scores; the highest of a group stay.

    Raises:
        UserError: unknown criterion, or one that does not apply to this network.
    """
    criterion: Criterion = registry.make("criterion", name)
    return criterion.score(unwrapped(module), graph, ScoringContext(*batch, seed))


def filters(graph: Graph, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Layer -> (output channels, weights of each) for the conv and linear layers that produce channels of a group.

    Args:
        graph: structure of the network.
        weights: tensors of the shapes of its weights, by their names.
    """
    return {
        layer: weights[weight.name].detach().float().movedim(dim, 0).flatten(1)
        for layer, (weight, dim) in graph.weights.items()
    }


def filters_of(module: nn.Module, graph: Graph) -> dict[str, Tensor]:
    """Layer -> (output channels, weights of each) as they are; see `filters`."""
    return filters(graph, dict(module.named_parameters(remove_duplicate=False)))


def filter_norms(module: nn.Module, graph: Graph, order: float) -> np.ndarray:
    """(all groups' channels,) norms of the given order of the filters that produce a channel."""
    rows = filters_of(module, graph)
    norms = {name: torch.linalg.vector_norm(row, order, dim=1).cpu().numpy() for name, row in rows.items()}
    return sum_over_producers(graph, norms)


def sum_over_producers(graph: Graph, values: dict[str, np.ndarray], scaled: bool = True) -> np.ndarray:
    """Add up one number per output channel of every producing layer.

    Args:
        graph: structure of the network.
        values: layer -> (its output channels,) non-negative numbers.
        scaled: scale each layer to mean 1, so that layers that are tied by a residual sum speak with equal weight;
            not where the numbers have a unit of their own, such as that of the loss.

    Returns:
        (all groups' channels,) sums.

    Raises:
        UserError: some of the numbers are not finite.
    """
    total = np.zeros(int(graph.sizes.sum()))
    for axis in graph.axes:
        if axis.side == "out" and axis.layer in values:
            value = values[axis.layer].astype(np.float64)
            if not np.isfinite(value).all():
                raise UserError(
                    f"the channels of '{axis.layer}' cannot be compared, the criterion gives them NaN or infinite "
                    "scores: its weights are too large, use a checkpoint from before it diverged"
                )
            mine = axis.slots >= 0
            np.add.at(total, axis.slots[mine], value[mine] / (max(value.mean(), 1e-12) if scaled else 1))
    return total
