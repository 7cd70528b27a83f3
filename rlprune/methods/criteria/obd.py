"""Second derivatives of the loss (LeCun, Denker & Solla, Optimal Brain Damage, 1989)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian

from rlprune.errors import UserError
from rlprune.graph.structure import Graph
from rlprune.methods.criteria.base import Criterion, ScoringContext, sum_over_producers
from rlprune.methods.criteria.base_gradients import Part, differentiating_twice, mean_loss, sum_over_images
from rlprune.tasks.base import Task

ROUNDING = 1e-14
"""What of a second derivative by the outputs, computed from probabilities around 1, is nothing but their rounding."""
MOST = 20_000
"""Weights whose second derivatives are taken one by one, at most."""


@dataclass(frozen=True)
class OptimalBrainDamage(Criterion):
    """Sum over all weights that make a channel of h w² / 2, what the loss rises by when the weight goes at a minimum.

    h is the second derivative of the mean loss by the weight alone. Nothing is scaled: all channels of the network can
    be compared.

    Paper: LeCun, Denker & Solla, Optimal Brain Damage, 1989

    Attributes:
        second: gauss-newton leaves the second derivatives of the network out, as the paper does: those of the loss by
            the outputs alone count, so that h is never negative. It takes a pass an image, along a direction drawn at
            random whose squared gradient is h in expectation; with two classes it is h. exact takes a pass a weight,
            which only small networks bear; what is negative then counts as 0.
    """

    needs: ClassVar[tuple[str, ...]] = ("labels", "gradients")
    second: Literal["gauss-newton", "exact"] = "gauss-newton"

    def score(self, module: nn.Module, graph: Graph, context: ScoringContext) -> np.ndarray:
        """See `Criterion.score`; UserError where there are too many weights for exact second derivatives."""
        number = len(context.images)
        if self.second == "exact":
            _require_few(graph)
            saliencies = sum_over_images(module, graph, context, _exact(context.task, number))
        else:
            drawn = torch.Generator().manual_seed(context.seed)
            part = _gauss_newton(context.task, number, drawn)
            saliencies = sum_over_images(module, graph, context, part, size=1)
        values = {layer: rows.sum(1).clamp(min=0).cpu().numpy() for layer, rows in saliencies.items()}
        return sum_over_producers(graph, values, scaled=False)


def _gauss_newton(task: Task, number: int, drawn: torch.Generator) -> Part:
    """A part that gives h w² / 2 of one image: the squared gradient along a root of the loss's Hessian by the outputs.

    With R Rᵀ that Hessian and random signs v, the outputs' Jacobian J has E[(Jᵀ R v)²] = diag(Jᵀ R Rᵀ J).
    """

    def part(outputs: Tensor, labels: Tensor, weights: list[Tensor]) -> list[Tensor]:
        # On the CPU, in the precision that a root of small eigenvalues needs and not every device has.
        root = _root(task, outputs.detach().cpu().double(), labels.cpu())
        signs = torch.randint(2, (len(root),), generator=drawn).double() * 2 - 1
        along = (root @ signs).to(outputs).reshape(outputs.shape)
        gradients = torch.autograd.grad(outputs, weights, along)
        return [
            (weight * gradient).square() / (2 * number) for weight, gradient in zip(weights, gradients, strict=True)
        ]

    return part


def _root(task: Task, outputs: Tensor, labels: Tensor) -> Tensor:
    """R with R Rᵀ the Hessian of the loss by the outputs for one image, (outputs, outputs)."""
    curvature = hessian(lambda value: task.loss(value, labels), outputs, vectorize=True)
    assert isinstance(curvature, Tensor)
    curvature = curvature.reshape(outputs.numel(), outputs.numel())
    # Of an image that the network is sure of, rounding is all there is.
    if (largest := curvature.abs().max()) < ROUNDING:
        return torch.zeros_like(curvature)
    # A cross-entropy does not change when all outputs do: its Hessian is singular, and rounding makes it worse.
    least = 1e-12 * largest + ROUNDING
    root, failed = torch.linalg.cholesky_ex(curvature + least * torch.eye(len(curvature), dtype=curvature.dtype))
    if failed:
        raise UserError("criterion obd does not apply: the loss of the task is not convex in the outputs; use taylor")
    return root


def _exact(task: Task, number: int) -> Part:
    """A part that gives h w² / 2 with h of the mean loss of all images, by a second pass for every weight."""

    def part(outputs: Tensor, labels: Tensor, weights: list[Tensor]) -> list[Tensor]:
        gradients = torch.autograd.grad(mean_loss(task, number, outputs, labels), weights, create_graph=True)
        with differentiating_twice("obd:second=exact", "obd"):
            return [
                _second(gradient, weight) * weight.square() / 2
                for weight, gradient in zip(weights, gradients, strict=True)
            ]

    return part


def _second(gradient: Tensor, weight: Tensor) -> Tensor:
    """Derivative of every entry of a gradient by the entry of the weight that it belongs to."""
    rows = [torch.autograd.grad(entry, weight, retain_graph=True)[0].flatten() for entry in gradient.flatten()]
    return torch.stack(rows).diagonal().reshape(weight.shape)


def _require_few(graph: Graph) -> None:
    number = sum(int(np.prod(weight.shape)) for weight, _ in graph.weights.values())
    if number > MOST:
        raise UserError(
            f"criterion obd:second=exact takes a backward pass a weight, {MOST:,} at most and not {number:,}: use obd"
        )
