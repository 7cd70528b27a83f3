"""A weight-shared copy of a dense network, tuned on many plans at once: what it says of a plan has seen recovery.

Slimmable networks (Yu & Huang 2019, arXiv 1903.05134) train one set of weights for all widths, several of them in every
step. Here all widths are plans inside one budget, they learn from the dense network, and the tuning is brief; then a
plan costs one forward pass on its slices, with batch norm recalibrated, as a one-shot evaluation does.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from rlprune.cost.projection import BudgetProjector
from rlprune.data.images import ImageSet
from rlprune.graph.structure import Graph
from rlprune.graph.surgery import Slicer, install
from rlprune.plans.counts import top_mask
from rlprune.tasks.base import Task
from rlprune.tasks.classification import CLASSIFICATION
from rlprune.training.config import TrainingConfig
from rlprune.training.learner import TAUGHT, Learner, autocast, make_fabric
from rlprune.utils.modules import copy_module, copy_sharing_weights, named_tensors, safe_backward, unwrapped

Draw = Callable[[np.random.Generator], list[np.ndarray]]
"""Gives the plans of a step, (all groups' channels,) bool each, from a source of randomness."""


def shell(
    graph: Graph, scores: np.ndarray, projector: BudgetProjector, bases: Sequence[tuple[np.ndarray, float]], others: int
) -> Draw:
    """Plans of equal cost: in every step the first base plan and random ones around any of them.

    Args:
        graph: structure of the network.
        scores: (all groups' channels,) of the criterion that says which channels stay.
        projector: the budget.
        bases: (groups,) kept channels, and the deviation of the random plans around them in log keep ratios.
        others: random plans a step.
    """

    def draw(rng: np.random.Generator) -> list[np.ndarray]:
        chosen = [bases[place] for place in rng.integers(len(bases), size=others)]
        wished = [counts * np.exp(rng.normal(0, deviation, len(counts))) for counts, deviation in chosen]
        plans = [bases[0][0], *projector.project(np.minimum(wished, projector.sizes))]
        return [top_mask(graph, counts, scores) for counts in plans]

    return draw


class Supernet:
    """A copy of a dense network whose slices learn.

    Args:
        module: the dense network; left as it was.
        graph: its structure.

    Attributes:
        module: the copy, of the dense sizes; its weights are what all plans share.
    """

    def __init__(self, module: nn.Module, graph: Graph) -> None:
        self.module = copy_module(unwrapped(module))
        self._slicer = Slicer(graph, {})
        self._sliced = copy_sharing_weights(self.module)

    def __call__(self, kept: np.ndarray, images: Tensor) -> Tensor:
        """Outputs of the slices of a plan in training mode; gradients flow back into the shared weights.

        Batch norms take the statistics of the batch and leave none behind: the shared ones would be those of no plan.

        Args:
            kept: (all groups' channels,) bool.
            images: (N, C, H, W).
        """
        # Slices that gradients flow through; what a slicer is given it detaches. Whole buffers would be written to.
        self._slicer.state = named_tensors(self.module)
        buffers = dict(self.module.named_buffers(remove_duplicate=False))
        slices = self._slicer.slices(kept)
        slices |= {name: slices[name].clone() for name in buffers.keys() & slices.keys()}
        detached = {name: tensor.detach() for name, tensor in slices.items()}
        install(self._sliced.train(), self.module, detached, features=self._slicer.features(kept))
        with safe_backward(self._sliced):
            return functional_call(self._sliced, slices, (images,), tie_weights=False)


def tune(
    net: Supernet,
    draw: Draw,
    images: ImageSet,
    config: TrainingConfig,
    teacher: nn.Module,
    *,
    device: torch.device,
    task: Task = CLASSIFICATION,
) -> None:
    """Tune the shared weights on the plans that are drawn, all of a step's on the same batch.

    Args:
        net: changed in place.
        draw: the plans of a step; their gradients are averaged.
        images: the training images.
        config: schedule and length, as for `rlprune.training.loop.train`.
        teacher: the dense network on ``device``, in eval mode.
        device: where to train.
        task: loss and score.
    """
    full, rng = config.resolved(len(images)), np.random.default_rng(config.seed)
    learner = Learner(net.module, full, task, make_fabric(device))
    generator = torch.Generator().manual_seed(config.seed)
    for _ in range(full.epochs):
        batches = images.batches(full.batch_size, augment=full.augment, generator=generator, device=device)
        for inputs, targets in batches:
            if len(targets) == 1:
                continue
            with torch.no_grad(), autocast(device):
                lesson = teacher(inputs).float()
            plans = draw(rng)
            learner.optimizer.zero_grad()
            for kept in plans:
                with autocast(device):
                    output = task.outputs(net(kept, inputs))[0].float()
                loss = (1 - TAUGHT) * task.loss(output, targets) + TAUGHT * task.distillation(output, lesson)
                (loss / len(plans)).backward()
            if not math.isfinite(loss.item()):
                raise ValueError("the supernet diverged: use a lower lr")
            learner.optimizer.step()
            learner.scheduler.step()
    net.module.eval()
