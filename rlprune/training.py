"""Training, recovery after pruning, and evaluation of a classifier."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR

from rlprune.crew import Run, crew, in_turn
from rlprune.device import evaluation_dtype
from rlprune.errors import UserError
from rlprune.images import SMALL
from rlprune.memory import Chunks
from rlprune.modules import evaluating, safe_backward
from rlprune.snapshot import Snapshot

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from rlprune.images import ImageSet

# The per-epoch record a training leaves: epoch, loss, accuracy, lr, seconds.
Record = dict[str, float]
AUXILIARY = 0.3
"""Weight of the losses of auxiliary heads (Szegedy et al. 2014, arXiv 1409.4842)."""
TEMPERATURE, TAUGHT = 4.0, 0.9
"""Of distillation: what logits are divided by, and how much the teacher's outputs count beside the labels."""


@dataclass(frozen=True)
class TrainingResult:
    """What a training went through.

    Attributes:
        history: one record per epoch: ``epoch`` (from 1), ``loss`` (mean, nats) and ``accuracy`` (in [0, 1]) on the
            training batches as they were met, ``lr`` of the last step, ``seconds``.
    """

    history: list[Record]


def train(
    module: nn.Module,
    images: ImageSet,
    *,
    epochs: int,
    lr: float | None = None,
    recovery: bool = False,
    batch_size: int | None = None,
    weight_decay: float = 5e-4,
    label_smoothing: float = 0.0,
    augment: bool = True,
    seed: int = 0,
    device: torch.device,
    teacher: nn.Module | None = None,
    state: Path | None = None,
    on_epoch: Callable[[Record], None] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> TrainingResult:
    """Train a classifier in place; it ends on ``device``, channels last, in eval mode.

    SGD with Nesterov momentum 0.9 under a one-cycle schedule (Smith & Topin 2017, arXiv 1708.07120) annealed to
    zero. Biases and normalisation parameters are not decayed (He et al. 2018, arXiv 1812.01187). Every epoch draws
    its randomness from (seed, epoch) alone, so a training continued from ``state`` ends where an uninterrupted one
    does; torch's global generators are left as they were found.

    Args:
        module: maps images (B, 3, S, S) to logits (B, classes); in train mode auxiliary logits may follow.
        images: the training images; a trailing batch of one is left out, batch norm has no variance to take there.
        epochs: passes over the images; 0 trains nothing.
        lr: the peak of the schedule; by default 0.1 at 128 images a step, and in proportion to them (the linear
            scaling rule of Goyal et al. 2017, arXiv 1706.02677).
        recovery: the network has been trained before and then pruned: the default ``lr`` is 0.03 instead of 0.1.
        batch_size: images a step, at least 2; by default 128, and from 127 down to 16 where 128 would leave less than
            40 steps an epoch.
        weight_decay: L2 coefficient.
        label_smoothing: in [0, 1].
        augment: whether the images are augmented.
        seed: not negative.
        device: where to train, in bfloat16 mixed precision if it has matrix units for that.
        teacher: maps the same images to logits that are learned from beside the labels; on ``device``, in eval mode,
            left as it is. See `distillation`.
        state: a file that holds the whole training state after every epoch and from which it continues if it exists;
            the caller removes it.
        on_epoch: called with every epoch's record, after the state was saved.
        on_step: called after every step with the steps done and the steps in all.

    Raises:
        UserError: a setting is out of range, the training diverged, or ``state`` is of another training.
    """
    settings = _settings(
        images,
        epochs=epochs,
        lr=lr,
        recovery=recovery,
        batch_size=batch_size,
        weight_decay=weight_decay,
        label_smoothing=label_smoothing,
        augment=augment,
        seed=seed,
        distilled=teacher is not None,
    )
    learner = _Learner(module, settings, _fabric(device))
    snapshot = Snapshot(
        state, settings, {"module": module, "optimizer": learner.optimizer, "scheduler": learner.scheduler}
    )
    history = snapshot.restore()
    for epoch in range(len(history) + 1, epochs + 1):
        start = time.perf_counter()
        with safe_backward(module):
            _epoch([learner], images, epoch, settings, teacher, on_step)
        record = learner.record()
        if not math.isfinite(record["loss"]):
            lr = settings["lr"]
            raise UserError(
                f"training diverged at epoch {epoch}, its loss is {record['loss']}: use a lower lr than {lr:g}"
            )
        history.append({"epoch": epoch, **record, "seconds": time.perf_counter() - start})
        snapshot.save(history)
        if on_epoch:
            on_epoch(history[-1])
    module.eval()
    return TrainingResult(history)


def recover_together(
    modules: Sequence[nn.Module],
    images: ImageSet,
    *,
    epochs: int = 1,
    lr: float | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    device: torch.device,
    teacher: nn.Module | None = None,
) -> None:
    """The recovery of several pruned networks, each as `train` does it; they share every batch.

    Images are read and augmented once for all, and the networks differ in nothing but themselves. On a CPU they learn
    side by side, each with its share of the threads.

    Args:
        modules: changed in place; each ends where it would have ended alone, if it draws nothing at random.
        images, epochs, lr, batch_size, seed, device, teacher: as for `train`.

    Raises:
        UserError: a setting is out of range. A network that diverged is left with weights that are not finite.
    """
    settings = _settings(
        images, epochs=epochs, lr=lr, recovery=True, batch_size=batch_size, seed=seed, distilled=teacher is not None
    )
    fabric = _fabric(device)
    learners = [_Learner(module, settings, fabric) for module in modules]
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(safe_backward(module))
        run = stack.enter_context(crew(device))
        for epoch in range(1, epochs + 1):
            _epoch(learners, images, epoch, settings, teacher, run=run)
    for module in modules:
        module.eval()


def usual_batch_size(images: int) -> int:
    """How many of so many images a step takes by default."""
    return max(16, min(128, images // 40))


def distillation(logits: Tensor, lesson: Tensor) -> Tensor:
    """How far a network's outputs are from a teacher's, both softened: T^2 KL(teacher || network), in nats.

    Hinton, Vinyals & Dean (2015, arXiv 1503.02531); T^2 keeps the gradients as large as those of the labels.

    Args:
        logits: (B, classes) of the network.
        lesson: (B, classes) of the teacher.
    """
    mine, theirs = (log_softmax(one.float() / TEMPERATURE, dim=1) for one in (logits, lesson))
    return TEMPERATURE**2 * kl_div(mine, theirs, reduction="batchmean", log_target=True)


def evaluate(
    module: nn.Module, images: ImageSet, *, device: torch.device, batch_size: int = 250
) -> tuple[float, float]:
    """The mean cross-entropy (nats) and the accuracy (in [0, 1]) of a classifier over all images.

    Args:
        module: maps images (B, 3, S, S) to logits (B, classes); moved to ``device``, its training modes are kept.
        images: at least one image, taken in order and without augmentation.
        device: where to compute, in bfloat16 if it has matrix units for that.
        batch_size: images at a time, fewer where there is no memory; it does not change the result beyond rounding.
    """
    chunks = Chunks(batch_size)
    module.to(device).to(memory_format=torch.channels_last)
    totals = torch.zeros(2, device=device)
    with evaluating(module), torch.inference_mode(), _autocast(device):
        for inputs, labels in images.batches(batch_size, device=device):
            logits = chunks(module, inputs)
            totals += _tally(cross_entropy(logits, labels), logits, labels)
    loss, accuracy = (totals / len(images)).tolist()
    return loss, accuracy


def _epoch(
    learners: Sequence[_Learner],
    images: ImageSet,
    epoch: int,
    settings: Mapping[str, Any],
    teacher: nn.Module | None = None,
    on_step: Callable[[int, int], None] | None = None,
    run: Run = in_turn,
) -> None:
    """Let every network learn from every batch of more than one image."""
    for learner in learners:
        learner.model.train()
    device = learners[0].fabric.device
    with _seeded(settings["seed"], epoch, device) as generator:
        batches = images.batches(
            settings["batch_size"], augment=settings["augment"], generator=generator, device=device
        )
        for inputs, labels in batches:
            if len(labels) == 1:
                continue
            lesson = None if teacher is None else _logits(teacher, inputs)
            # Large images keep all cores busy, and several networks at once would want several times the memory.
            together = run if inputs[0, 0].numel() <= SMALL**2 else in_turn
            together(partial(_Learner.step, inputs=inputs, labels=labels, lesson=lesson), learners)
            if on_step:
                scheduler = learners[0].scheduler
                on_step(scheduler.last_epoch, scheduler.total_steps - 1)


class _Learner:
    """A network with what steps it; sums over the epoch stay on the device, so that no step waits for them."""

    def __init__(self, module: nn.Module, settings: Mapping[str, Any], fabric: Fabric) -> None:
        module.to(fabric.device).to(memory_format=torch.channels_last)
        lr, size, images = settings["lr"], settings["batch_size"], settings["images"]
        optimizer = SGD(_parameter_groups(module, settings["weight_decay"]), lr=lr, momentum=0.9, nesterov=True)
        steps = settings["epochs"] * (images // size + (images % size > 1))
        # The schedule is a step longer than the training: its last value is zero, and a step with that would be wasted.
        self.scheduler = OneCycleLR(optimizer, lr, total_steps=steps + 1, cycle_momentum=False)
        self.label_smoothing, self.fabric = settings["label_smoothing"], fabric
        self.model, self.optimizer = fabric.setup(module, optimizer)
        self._clear()

    def _clear(self) -> None:
        self._totals, self._seen = torch.zeros(2, device=self.fabric.device), 0

    def step(self, inputs: Tensor, labels: Tensor, lesson: Tensor | None = None) -> None:
        """Learn from one batch, and from a teacher's logits for it."""
        logits, *auxiliary = _outputs(self.model(inputs))
        losses = [cross_entropy(one, labels, label_smoothing=self.label_smoothing) for one in (logits, *auxiliary)]
        loss = losses[0] + AUXILIARY * sum(losses[1:])
        if lesson is not None:
            loss = (1 - TAUGHT) * loss + TAUGHT * distillation(logits, lesson)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        self.optimizer.step()
        self._totals, self._seen = self._totals + _tally(losses[0].detach(), logits, labels), self._seen + len(labels)
        self._lr = self.scheduler.get_last_lr()[0]
        self.scheduler.step()

    def record(self) -> Record:
        """Mean loss and accuracy since the last record, and the last learning rate."""
        loss, accuracy = (self._totals / self._seen).tolist()
        self._clear()
        return {"loss": loss, "accuracy": accuracy, "lr": self._lr}


def _logits(teacher: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad(), _autocast(inputs.device):
        return teacher(inputs).float()


def _outputs(result: Any) -> list[Tensor]:
    """The logits, and those of the auxiliary heads that some networks have in training mode."""
    if isinstance(result, Tensor):
        return [result]
    every = result.values() if isinstance(result, Mapping) else result
    return [logits for logits in every if logits is not None]


def _settings(
    images: ImageSet,
    *,
    epochs: int,
    lr: float | None,
    recovery: bool,
    batch_size: int | None,
    seed: int,
    weight_decay: float = 5e-4,
    label_smoothing: float = 0.0,
    augment: bool = True,
    distilled: bool = False,
) -> dict[str, Any]:
    """Every setting of a training, with the defaults that depend on others, checked."""
    batch_size = usual_batch_size(len(images)) if batch_size is None else batch_size
    lr = (0.03 if recovery else 0.1) * batch_size / 128 if lr is None else lr
    settings = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "weight_decay": weight_decay}
    settings |= {"label_smoothing": label_smoothing, "augment": augment, "seed": seed, "images": len(images)}
    settings["distilled"] = distilled
    _check(settings)
    return settings


def _check(settings: dict[str, Any]) -> None:
    least = {"epochs": 0, "batch_size": 2, "weight_decay": 0, "label_smoothing": 0, "seed": 0, "images": 2}
    for name, bound in least.items():
        if settings[name] < bound:
            raise UserError(f"training with {name} = {settings[name]}: it must be at least {bound}")
    if not settings["lr"] > 0:
        raise UserError(f"training with lr = {settings['lr']}: it must be above 0, such as 0.1")
    if settings["label_smoothing"] > 1:
        raise UserError(f"training with label_smoothing = {settings['label_smoothing']}: it must be at most 1")


def _parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    # Biases and the scales of normalisation layers are the parameters of at most one dimension.
    return [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]


def _fabric(device: torch.device) -> Fabric:
    from lightning_fabric import Fabric  # takes a second to import

    # Fabric announces its precision at every start; a search starts hundreds.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    precision: Literal["bf16-mixed", "32-true"] = "bf16-mixed" if evaluation_dtype(device) else "32-true"
    devices = [device.index or 0] if device.type == "cuda" else 1
    return Fabric(accelerator=device.type, devices=devices, precision=precision)


@contextmanager
def _seeded(seed: int, epoch: int, device: torch.device) -> Iterator[torch.Generator]:
    """A generator for the order and augmentation of an epoch, with torch's own (dropout) seeded meanwhile."""
    value = int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(value)
        yield torch.Generator().manual_seed(value)


def _autocast(device: torch.device) -> AbstractContextManager:
    dtype = evaluation_dtype(device)
    return torch.autocast(device.type, dtype) if dtype else nullcontext()


def _tally(loss: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """The summed loss and the number of right answers of a batch, from its mean loss."""
    return torch.stack([loss * len(labels), (logits.argmax(1) == labels).sum()])
