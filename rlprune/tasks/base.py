"""What a task is to everything that trains, scores and traces networks."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

AS_THEY_ARE, FLIP, STANDARD, CUTOUT = "none", "flip", "standard", "cutout"
AUGMENTATIONS = (AS_THEY_ARE, FLIP, STANDARD, CUTOUT)
"""How images are changed at random for training: not at all; half of them mirrored; moved or cropped as well; a part of
each blackened as well."""


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation of a plan found: its loss, and its score by the metric of the task."""

    loss: float
    accuracy: float


class Task(Protocol):
    """What a sample is, what it costs to be wrong, and how good a network is.

    Attributes:
        metric: what scores are called.
        higher_is_better: whether a higher score is a better one.
        pipeline_tag: by which model hubs know networks of this task.
    """

    metric: ClassVar[str]
    higher_is_better: ClassVar[bool]
    pipeline_tag: ClassVar[str]

    @abstractmethod
    def check(self, output: Any) -> None:
        """Raise UserError unless a network in eval mode may return this for one sample."""

    @abstractmethod
    def outputs(self, result: Any) -> list[Tensor]:
        """What a network in training mode returns, the output itself first, then those of auxiliary heads."""

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor, *, smoothing: float = 0.0, each: bool = False) -> Tensor:
        """The loss of a batch.

        Args:
            output: (B, ...) of the network.
            target: (B, ...) what it should have been.
            smoothing: of targets that are classes, in [0, 1].
            each: (B,) losses instead of their mean.
        """

    @abstractmethod
    def right(self, output: Tensor, target: Tensor) -> Tensor:
        """(B,) score of every sample, such as whether its class is right."""

    @abstractmethod
    def distillation(self, output: Tensor, lesson: Tensor) -> Tensor:
        """How far outputs are from a teacher's, a scalar."""

    @abstractmethod
    def chance_loss(self, classes: int) -> float:
        """The loss of a network that knows nothing."""

    @abstractmethod
    def evaluate(self, outputs: Tensor, targets: Tensor) -> Evaluation:
        """Loss and score of a pruned network that has not been fine-tuned, over all samples at once."""

    @abstractmethod
    def augment(self, samples: Tensor, generator: torch.Generator, how: str) -> Tensor:
        """Samples that are kept in memory, changed at random for training.

        Args:
            samples: (B, ...).
            generator: the source of all randomness, on the device of the samples or on the CPU.
            how: one of `AUGMENTATIONS`, but for the first.
        """
