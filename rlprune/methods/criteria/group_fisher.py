"""Fisher information of masks of coupled channels (Liu et al., Group Fisher Pruning, 2021, arXiv 2108.00708)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from rlprune.cost.exact import RESOURCES, build_cost
from rlprune.graph.structure import Graph
from rlprune.methods.criteria.base import Criterion, ScoringContext
from rlprune.methods.criteria.base_gradients import differentiable
from rlprune.methods.criteria.base_reads import masked, over_chunks
from rlprune.utils.modules import named_tensors


@dataclass(frozen=True)
class GroupFisher(Criterion):
    """Sum over images of (derivative of the loss by one mask of the channel in all layers that read it)².

    Depthwise layers, which go with their inputs, count among those. Nothing is scaled: all channels of the network can
    be compared.

    Paper: Liu et al., Group Fisher Pruning for Practical Network Compression, 2021, arXiv 2108.00708

    Claim: ResNet-50 on ImageNet with half of the MACs has 76.42 instead of 76.79 %, pruned while it is tuned.

    Attributes:
        per: what the sum is divided by: none; memory, the outputs that the layers of the group compute for the channel;
            macs, the multiply-accumulates that go with it.
    """

    needs: ClassVar[tuple[str, ...]] = ("labels", "gradients")
    per: Literal["none", "memory", "macs"] = "none"

    def score(self, module: nn.Module, graph: Graph, context: ScoringContext) -> np.ndarray:
        """See `Criterion.score`; UserError where no layer reads the channels of a group."""
        sums = over_chunks(context.images, lambda parts: _sums(module, graph, context, parts))
        return sums / _savings(graph, self.per)


def _sums(module: nn.Module, graph: Graph, context: ScoringContext, parts: list[slice]) -> np.ndarray:
    """(all groups' channels,) sums of squared derivatives."""
    total = np.zeros(int(graph.sizes.sum()))
    # Without the weights' own gradients, which nobody asks for.
    tensors = {name: tensor.detach() for name, tensor in named_tensors(module).items()}
    with differentiable(module):
        for chunk in parts:
            images, labels = context.images[chunk], context.labels[chunk]
            mask = torch.ones(len(images), len(total), device=images.device, requires_grad=True)
            with masked(module, graph, mask, "group-fisher"):
                outputs: Tensor = functional_call(module, tensors, images)
            # Every image's loss depends on its own row of masks alone.
            (gradients,) = torch.autograd.grad(context.task.loss(outputs, labels, each=True).sum(), mask)
            total += gradients.square().sum(0).cpu().double().numpy()
    return total


def _savings(graph: Graph, per: str) -> np.ndarray:
    """(all groups' channels,) what goes with a channel."""
    if per == "macs":
        cost = build_cost(graph)
        less = np.maximum(graph.sizes - np.eye(len(graph.groups), dtype=np.int64), 0)
        saved = (cost.dense - cost(less))[:, RESOURCES.index("macs")]
        return np.repeat(saved, graph.sizes)
    total = np.zeros(int(graph.sizes.sum()))
    for axis in graph.axes:
        if axis.side == "out" and axis.layer in graph.weights:
            mine = axis.slots >= 0
            np.add.at(total, axis.slots[mine], graph.layers[axis.layer])
    return total if per == "memory" else np.ones_like(total)
