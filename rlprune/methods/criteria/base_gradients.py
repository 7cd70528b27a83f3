"""What criteria take from backward passes: sums over the images, as many of them at a time as there is memory for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rlprune.errors import UserError
from rlprune.graph.structure import Graph
from rlprune.methods.criteria.base import ScoringContext, filters
from rlprune.tasks.base import Task
from rlprune.utils.modules import evaluating, safe_backward

PIXELS = 2**20
"""Of the images that go through the network at once: what it computes is kept for the backward pass. 1,024 images of 32
pixels a side, 20 of 224."""
Part = Callable[[Tensor, Tensor, list[Tensor]], list[Tensor]]
"""Outputs and labels of some images, and the weights -> something for every weight."""


def chunks(images: Tensor) -> list[slice]:
    """Of (N, C, H, W) images as many at a time as `PIXELS` allows."""
    return slices(images, max(1, PIXELS // images[0, 0].numel()))


def slices(images: Tensor, size: int) -> list[slice]:
    """Of (N, C, H, W) images so many at a time."""
    return [slice(start, start + size) for start in range(0, len(images), size)]


@contextmanager
def differentiable(module: nn.Module) -> Iterator[None]:
    """Within, gradients flow through a network in eval mode; afterwards it is as it was."""
    with evaluating(module), safe_backward(module), torch.enable_grad():
        yield


def sum_over_images(
    module: nn.Module, graph: Graph, context: ScoringContext, part: Part, size: int | None = None
) -> dict[str, Tensor]:
    """Add up something for every weight that produces channels.

    Args:
        module: the network; left as it was, with the gradients that it had.
        graph: its structure.
        context: images and labels.
        part: what some of the images give.
        size: images at a time; by default as many as `PIXELS` allows.

    Returns:
        Layer -> (output channels, weights of each) sums.
    """
    # Aliases that need a gradient, so that frozen layers count too and the network's own flags stay as they are.
    names = list(dict.fromkeys(weight.name for weight, _ in graph.weights.values()))
    weights = {name: module.get_parameter(name).detach().requires_grad_() for name in names}
    total = [torch.zeros_like(weight) for weight in weights.values()]
    with differentiable(module):
        for chunk in chunks(context.images) if size is None else slices(context.images, size):
            outputs = functional_call(module, weights, context.images[chunk])
            for sums, found in zip(total, part(outputs, context.labels[chunk], list(weights.values())), strict=True):
                sums += found.detach()
    return filters(graph, dict(zip(names, total, strict=True)))


def first_order(task: Task, number: int) -> Part:
    """A part that gives weight times gradient, of the mean loss of all images.

    Args:
        task: whose loss it is.
        number: of all images.
    """

    def part(outputs: Tensor, labels: Tensor, weights: list[Tensor]) -> list[Tensor]:
        gradients = torch.autograd.grad(mean_loss(task, number, outputs, labels), weights)
        return [weight * gradient for weight, gradient in zip(weights, gradients, strict=True)]

    return part


def mean_loss(task: Task, number: int, outputs: Tensor, labels: Tensor) -> Tensor:
    """What some of the images add to the mean loss of all: all parts add up to the whole."""
    return task.loss(outputs, labels) * (len(labels) / number)


@contextmanager
def differentiating_twice(name: str, instead: str) -> Iterator[None]:
    """Within, second derivatives are taken; some operations have a derivative and no second one.

    Args:
        name: of the criterion that needs them.
        instead: one that does not.

    Raises:
        UserError: there are none.
    """
    try:
        yield
    except RuntimeError as error:
        raise UserError(f"criterion {name} does not apply to this network, take {instead}: {error}") from None
