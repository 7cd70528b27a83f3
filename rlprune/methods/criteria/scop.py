"""Scientific control by knockoff images (Tang et al., SCOP, 2020, arXiv 2010.10732)."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from rlprune.errors import UserError
from rlprune.graph.structure import Graph
from rlprune.methods.criteria.base import Criterion, ScoringContext, sum_over_producers
from rlprune.methods.criteria.base_batch_norms import batch_norm_scales
from rlprune.methods.criteria.base_gradients import chunks, differentiable
from rlprune.methods.criteria.base_knockoffs import Draw, of_folder, second_order
from rlprune.utils.modules import named_tensors

BATCH = 32
"""Images a step, at most."""


@dataclass(frozen=True)
class Scop(Criterion):
    """Sum over a group's batch norms of |γ| (β - β̃): how much a channel prefers real images to knockoffs.

    Before every batch norm the maps of real images are mixed with those of knockoffs, β a + β̃ ã with β + β̃ = 1, and the
    β of every channel is trained on the task from 0.5 in [0, 1], all weights frozen. In every group scores are moved so
    that none is negative.

    Paper: Tang et al., SCOP: Scientific Control for Reliable Neural Network Pruning, 2020, arXiv 2010.10732

    Claim: ResNet-50 on ImageNet with 45 % fewer MACs loses 0.2 points, with 55 % fewer 0.9, fine-tuned.

    It differs from the paper in the knockoffs and in the training. The paper draws them from a generator trained on the
    whole data set; here they are second-order knockoffs of the principal components of the calibration images, which
    have their means and covariances and nothing else of them: they look like noise of the right colours and scales, and
    control for less than images that look real. β is trained on the calibration images alone, by Adam with steps that
    just reach 0 or 1 if all go the same way.

    Attributes:
        knockoffs: folder of images of the user's own, such as those of a generator, instead.
        epochs: passes over the calibration images; more than one is of use with knockoffs that look like images.
    """

    needs: ClassVar[tuple[str, ...]] = ("labels", "gradients", "batch norm")
    knockoffs: str = ""
    epochs: int = 1

    def __post_init__(self) -> None:
        """Raise UserError unless something is trained."""
        if self.epochs < 1:
            raise UserError(f"criterion scop:epochs={self.epochs}: expected 1 or more")

    def score(self, module: nn.Module, graph: Graph, context: ScoringContext) -> np.ndarray:
        """See `Criterion.score`; UserError where a group has no batch norm, or there are no knockoffs."""
        scales = batch_norm_scales(module, graph, "scop")
        producers = {layer for group in graph.groups for layer in group.producers}
        drawn = torch.Generator().manual_seed(context.seed)
        images = context.images
        draw = of_folder(self.knockoffs, images, drawn) if self.knockoffs else second_order(images, drawn)
        norms = {layer: len(scale) for layer, scale in scales.items() if layer in producers}
        shares = trained_shares(module, norms, context, draw, self.epochs, drawn)
        return control(graph, scales, shares)


def control(graph: Graph, scales: Mapping[str, np.ndarray], shares: Mapping[str, np.ndarray]) -> np.ndarray:
    """(all groups' channels,) scores, of the |γ| and the β of every batch norm."""
    preferences = {layer: scales[layer] * (2 * share - 1) for layer, share in shares.items()}
    total = sum_over_producers(graph, preferences, scaled=False)
    for mine in graph.split(total):
        mine -= min(mine.min(), 0)
    return total


def trained_shares(
    module: nn.Module,
    norms: Mapping[str, int],
    context: ScoringContext,
    draw: Draw,
    epochs: int,
    drawn: torch.Generator,
) -> dict[str, np.ndarray]:
    """Batch norm -> (channels,) the share β of real images that the task asks for.

    Args:
        module: the network.
        norms: its batch norms, and how many channels they have.
        context: images and labels.
        draw: makes knockoffs.
        epochs: passes over the images.
        drawn: the source of all other randomness, on the CPU.
    """
    images = context.images
    size = min(BATCH, chunks(images)[0].stop)
    tensors = {name: tensor.detach() for name, tensor in named_tensors(module).items()}
    shares = {name: images.new_full((number,), 0.5).requires_grad_() for name, number in norms.items()}
    steps = epochs * -(-len(images) // size)
    # The betas are those of the paper.
    optimizer = torch.optim.Adam(shares.values(), lr=0.5 / steps, betas=(0.5, 0.9))
    with differentiable(module):
        for _ in range(epochs):
            for some in torch.randperm(len(images), generator=drawn).split(size):
                some = some.to(images.device)
                optimizer.zero_grad()
                with mixed(module, shares, draw(len(some))):
                    outputs: Tensor = functional_call(module, tensors, images[some])
                context.task.loss(outputs, context.labels[some]).backward()
                optimizer.step()
                with torch.no_grad():
                    for share in shares.values():
                        share.clamp_(0, 1)
    return {name: share.detach().cpu().double().numpy() for name, share in shares.items()}


@contextmanager
def mixed(module: nn.Module, shares: Mapping[str, Tensor], knockoffs: Tensor) -> Iterator[None]:
    """Within, batch norms read a mixture of the maps of images and of knockoffs.

    Args:
        module: the network in eval mode.
        shares: batch norm -> (channels,) share of the images.
        knockoffs: one for each of the images that are run within.
    """
    seen: dict[str, list[Tensor]] = defaultdict(list)

    def record(name: str, maps: Tensor) -> None:
        # A clone, for the network may change in place what it has computed.
        seen[name].append(maps.clone())

    def mix(name: str, maps: Tensor) -> tuple[Tensor]:
        share = shares[name].view(-1, *(1,) * (maps.dim() - 2))
        return (torch.lerp(seen[name].pop(0), maps, share),)

    with _reading(module, shares, record), torch.no_grad():
        module(knockoffs)
    with _reading(module, shares, mix):
        yield


@contextmanager
def _reading(
    module: nn.Module, names: Iterable[str], look: Callable[[str, Tensor], tuple[Tensor] | None]
) -> Iterator[None]:
    """Within, what layers read is looked at, or changed, with the name of the layer."""
    with ExitStack() as stack:
        for name in names:
            hook = partial(lambda name, _, inputs: look(name, inputs[0]), name)
            stack.callback(module.get_submodule(name).register_forward_pre_hook(hook).remove)
        yield
