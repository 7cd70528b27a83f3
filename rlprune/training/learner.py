"""A network with what steps it."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR

from rlprune.tasks.base import Task
from rlprune.training.config import WARM_UP, Resolved
from rlprune.utils.device import evaluation_dtype

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Record = dict[str, float]
"""What an epoch leaves: epoch, loss, accuracy, lr, seconds."""
AUXILIARY = 0.3
"""Weight of the losses of auxiliary heads (Szegedy et al. 2014, arXiv 1409.4842)."""
TAUGHT = 0.9
"""How much a teacher's outputs count beside the targets."""


class Learner:
    """A network with its optimizer and schedule; sums over an epoch stay on the device, so that no step waits for them.

    Args:
        module: changed in place; moved to the device of the fabric, channels last.
        config: of the training.
        task: its loss and score.
        fabric: device and precision.
    """

    def __init__(self, module: nn.Module, config: Resolved, task: Task, fabric: Fabric) -> None:
        module.to(fabric.device).to(memory_format=torch.channels_last)
        optimizer = SGD(_parameter_groups(module, config.weight_decay), lr=config.lr, momentum=0.9, nesterov=True)
        # The schedule is a step longer than the training: its last value is zero, and a step with that would be wasted.
        share, steps = WARM_UP[config.schedule], config.steps + 1
        self.scheduler = OneCycleLR(optimizer, config.lr, total_steps=steps, pct_start=share, cycle_momentum=False)
        self.smoothing, self.task, self.fabric = config.label_smoothing, task, fabric
        self.model, self.optimizer = fabric.setup(module, optimizer)
        self._clear()

    def _clear(self) -> None:
        self._totals, self._seen = torch.zeros(2, device=self.fabric.device), 0

    def step(self, inputs: Tensor, targets: Tensor, lesson: Tensor | None = None) -> None:
        """Learn from one batch, and from a teacher's outputs for it."""
        # Not through Fabric's own module: one flag for all threads tells it whether a backward pass is Fabric's, and
        # several networks go back at once.
        with self.fabric.autocast():
            result = self.model.module(inputs)
        output, *auxiliary = (one.float() for one in self.task.outputs(result))
        losses = [self.task.loss(one, targets, smoothing=self.smoothing) for one in (output, *auxiliary)]
        loss = losses[0] + AUXILIARY * sum(losses[1:])
        if lesson is not None:
            loss = (1 - TAUGHT) * loss + TAUGHT * self.task.distillation(output, lesson)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        self.optimizer.step()
        self._totals = self._totals + tally(self.task, losses[0].detach(), output, targets)
        self._seen += len(targets)
        self._lr = self.scheduler.get_last_lr()[0]
        self.scheduler.step()

    def record(self) -> Record:
        """Mean loss and score since the last record, and the last learning rate."""
        loss, accuracy = (self._totals / self._seen).tolist()
        self._clear()
        return {"loss": loss, "accuracy": accuracy, "lr": self._lr}


def tally(task: Task, loss: Tensor, output: Tensor, targets: Tensor) -> Tensor:
    """(2,) the summed loss and score of a batch, from its mean loss."""
    return torch.stack([loss * len(targets), task.right(output, targets).sum()])


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Bfloat16 where the device has matrix units for that."""
    dtype = evaluation_dtype(device)
    return torch.autocast(device.type, dtype) if dtype else nullcontext()


def make_fabric(device: torch.device) -> Fabric:
    """Device and precision of a training: bfloat16 mixed precision where the device has matrix units for that."""
    from lightning_fabric import Fabric  # takes a second to import

    # Fabric announces its precision at every start; a search starts hundreds.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    precision: Literal["bf16-mixed", "32-true"] = "bf16-mixed" if evaluation_dtype(device) else "32-true"
    devices = [device.index or 0] if device.type == "cuda" else 1
    return Fabric(accelerator=device.type, devices=devices, precision=precision)


def _parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    # Biases and the scales of normalisation layers are the parameters of at most one dimension.
    return [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
