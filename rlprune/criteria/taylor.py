"""First-order Taylor expansion of the loss (Molchanov et al., 2019, arXiv 1906.10771)."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlprune.criteria import sum_over_producers
from rlprune.graph import Graph


def score(module: nn.Module, graph: Graph, batch: tuple[Tensor, Tensor], seed: int) -> np.ndarray:
    """Sum over a group's producing layers of (Σ over the filter of weight × gradient)², each layer scaled to mean 1."""
    images, labels = batch
    weights = {name: module.get_submodule(name).weight for name in graph.layers}
    training = module.training
    with torch.enable_grad():
        loss = F.cross_entropy(module.eval()(images), labels)
        gradients = torch.autograd.grad(loss, list(weights.values()))
    module.train(training)
    effects = {
        name: (weight * gradient).detach().flatten(1).sum(1).square().cpu().double().numpy()
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
    }
    return sum_over_producers(graph, effects)
