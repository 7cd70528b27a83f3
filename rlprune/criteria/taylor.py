"""First-order Taylor expansion of the loss (Molchanov et al., 2019, arXiv 1906.10771)."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from rlprune.criteria import sum_over_producers, weighted
from rlprune.graph import Graph
from rlprune.modules import evaluating


def score(module: nn.Module, graph: Graph, batch: tuple[Tensor, Tensor], seed: int) -> np.ndarray:
    """Sum over a group's producing layers of (Σ over the filter of weight × gradient)², each layer scaled to mean 1."""
    images, labels = batch
    # Aliases that need a gradient, so that frozen layers count too and the network's own flags stay as they are.
    weights = {name: module.get_parameter(f"{name}.weight").detach().requires_grad_() for name in weighted(graph)}
    with evaluating(module), torch.enable_grad():
        logits = functional_call(module, {f"{name}.weight": weight for name, weight in weights.items()}, images)
        gradients = torch.autograd.grad(F.cross_entropy(logits, labels), list(weights.values()))
    effects = {
        name: (weight * gradient).detach().float().flatten(1).sum(1).square().cpu().numpy()
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
    }
    return sum_over_producers(graph, effects)
