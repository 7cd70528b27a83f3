"""First-order Taylor expansion of the loss (Molchanov et al., 2019, arXiv 1906.10771)."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from rlprune.criteria import filters, sum_over_producers
from rlprune.graph import Graph
from rlprune.modules import evaluating, safe_backward


def score(module: nn.Module, graph: Graph, batch: tuple[Tensor, Tensor], seed: int) -> np.ndarray:
    """Sum over a group's producing layers of (Σ over the filter of weight × gradient)², each layer scaled to mean 1."""
    images, labels = batch
    # Aliases that need a gradient, so that frozen layers count too and the network's own flags stay as they are.
    names = [weight.name for weight, _ in graph.weights.values()]
    weights = {name: module.get_parameter(name).detach().requires_grad_() for name in names}
    with evaluating(module), safe_backward(module), torch.enable_grad():
        logits = functional_call(module, weights, images)
        gradients = torch.autograd.grad(F.cross_entropy(logits, labels), list(weights.values()))
    products = {name: weights[name] * gradient for name, gradient in zip(names, gradients, strict=True)}
    effects = {layer: rows.sum(1).square().cpu().numpy() for layer, rows in filters(graph, products).items()}
    return sum_over_producers(graph, effects)
