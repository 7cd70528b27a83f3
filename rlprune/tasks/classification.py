"""Classification: everything that makes a network a classifier, and nothing elsewhere does."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from rlprune.errors import UserError
from rlprune.tasks.base import CUTOUT, FLIP, Evaluation, Task

TEMPERATURE = 4.0
"""Of distillation: what logits are divided by."""


@dataclass(frozen=True)
class Classification(Task):
    """One class an image, told by logits of shape (images, classes)."""

    metric: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True
    pipeline_tag: ClassVar[str] = "image-classification"

    def check(self, output: Any) -> None:
        """See `Task.check`; one tensor (1, classes)."""
        if not isinstance(output, Tensor) or output.dim() != 2:
            what = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise UserError(
                f"the network must return one tensor (images, classes) in eval mode; for one image it returns {what}: "
                "wrap it in a module that returns its logits, or use rlprune.tracing.build.build_graph and "
                "rlprune.graph.surgery.prune"
            )

    def outputs(self, result: Any) -> list[Tensor]:
        """See `Task.outputs`; the logits, and those of the auxiliary heads that some networks have."""
        if isinstance(result, Tensor):
            return [result]
        every = result.values() if isinstance(result, Mapping) else result
        return [logits for logits in every if logits is not None]

    def loss(self, output: Tensor, target: Tensor, *, smoothing: float = 0.0, each: bool = False) -> Tensor:
        """See `Task.loss`; cross-entropy in nats."""
        return F.cross_entropy(output, target, reduction="none" if each else "mean", label_smoothing=smoothing)

    def right(self, output: Tensor, target: Tensor) -> Tensor:
        """See `Task.right`; whether the class with the largest logit is that of the label."""
        return output.argmax(1) == target

    def distillation(self, output: Tensor, lesson: Tensor) -> Tensor:
        """See `Task.distillation`; T^2 KL(teacher || network) of both softened, in nats.

        Hinton, Vinyals & Dean (2015, arXiv 1503.02531); T^2 keeps the gradients as large as those of the labels.
        """
        mine, theirs = (F.log_softmax(one.float() / TEMPERATURE, dim=1) for one in (output, lesson))
        return TEMPERATURE**2 * F.kl_div(mine, theirs, reduction="batchmean", log_target=True)

    def chance_loss(self, classes: int) -> float:
        """See `Task.chance_loss`; that of equal probabilities."""
        return math.log(classes)

    def evaluate(self, outputs: Tensor, targets: Tensor) -> Evaluation:
        """See `Task.evaluate`; see `calibrated`."""
        return calibrated(outputs, targets)

    def augment(self, samples: Tensor, generator: torch.Generator, how: str) -> Tensor:
        """See `Task.augment`, `mirror`, `crop_and_mirror` and `cut_out`."""
        if how == FLIP:
            return mirror(samples, generator)
        moved = crop_and_mirror(samples, generator)
        return cut_out(moved, generator) if how == CUTOUT else moved


CLASSIFICATION = Classification()


def calibrated(logits: Tensor, labels: Tensor) -> Evaluation:
    """Calibrated cross-entropy and accuracy of (N, classes) logits against (N,) labels.

    The loss is the lowest over all temperatures (Guo et al., 2017, arXiv 1706.04599). Pruning changes the scale of the
    logits, which fine-tuning repairs within a few steps; without the temperature a search is paid for doubt instead of
    accuracy (see docs/search.md).
    """
    # Here, for whoever replays a policy without measuring anything should not wait for it.
    from scipy.optimize import minimize_scalar

    logits, labels = logits.double().cpu(), labels.cpu()
    # What overflows says nothing of its image: all classes are alike to it, and its answer is wrong.
    finite = torch.isfinite(logits).all(1)
    logits = torch.where(finite[:, None], logits, 0.0)

    def loss(log_scale: float) -> float:
        return F.cross_entropy(logits * math.exp(log_scale), labels).item()

    best = minimize_scalar(loss, bounds=(-5, 3), method="bounded", options={"xatol": 1e-4})
    return Evaluation(float(best.fun), ((logits.argmax(1) == labels) & finite).double().mean().item())


def crop_and_mirror(images: Tensor, generator: torch.Generator) -> Tensor:
    """Moves each image by up to an eighth of its sides on a black ground and mirrors half of them.

    Four pixels at 32 x 32, the augmentation of He et al. 2015, arXiv 1512.03385, section 4.2.

    Args:
        images: uint8 of shape (B, C, H, W).
        generator: the source of all randomness.

    Returns:
        uint8 of the same shape, in channels-last memory format.
    """
    (batch, _, height, width), device = images.shape, images.device
    below, beside = height // 8, width // 8
    # Upwards, sideways, and whether mirrored.
    up, along, mirrored = _drawn((2 * below + 1, 2 * beside + 1, 2), images, generator)
    rows, columns = torch.arange(height, device=device) + up, torch.arange(width, device=device) + along
    columns = torch.where(mirrored.bool(), columns.flip(1), columns)
    padded, which = F.pad(images, [beside, beside, below, below]), torch.arange(batch, device=device)[:, None, None]
    # Indices on both sides of the slice put the colours last, which is the memory format wanted.
    return padded[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def mirror(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrors half of the images; arguments and result as for `crop_and_mirror`, in the memory format of the images."""
    (mirrored,) = _drawn((2,), images, generator)
    return torch.where(mirrored.bool()[:, :, None, None], images.flip(3), images)


def cut_out(images: Tensor, generator: torch.Generator) -> Tensor:
    """Blackens half the height and width of each image around any of its pixels; at the edges less of that is seen.

    DeVries & Taylor 2017, arXiv 1708.04552: 16 x 16 of 32 x 32 pixels. Arguments and result as for `mirror`.
    """
    height, width = images.shape[2:]
    centres = _drawn((height, width), images, generator)
    rows, columns = (
        (offset >= -(side // 4)) & (offset < side // 2 - side // 4)
        for side, centre in zip((height, width), centres, strict=True)
        for offset in [torch.arange(side, device=images.device) - centre]
    )
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def _drawn(limits: tuple[int, ...], images: Tensor, generator: torch.Generator) -> list[Tensor]:
    """For each limit a number from 0 up to it for every image, int64 (B, 1).

    Nothing is copied where the generator is on the device of the images.
    """
    return [
        torch.randint(limit, (len(images), 1), generator=generator, device=generator.device).to(images.device)
        for limit in limits
    ]
