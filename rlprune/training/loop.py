"""Training, recovery after pruning, and evaluation of a network."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.data.images import SMALL, ImageSet
from rlprune.errors import UserError
from rlprune.tasks.base import Task
from rlprune.tasks.classification import CLASSIFICATION
from rlprune.training.config import Resolved, TrainingConfig
from rlprune.training.learner import Learner, Record, autocast, make_fabric, tally
from rlprune.training.parallel import Run, in_turn, side_by_side
from rlprune.training.snapshot import Snapshot
from rlprune.utils.memory import Chunks
from rlprune.utils.modules import evaluating, safe_backward, unwrapped


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
    config: TrainingConfig,
    *,
    device: torch.device,
    task: Task = CLASSIFICATION,
    teacher: nn.Module | None = None,
    state: Path | None = None,
    on_epoch: Callable[[Record], None] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> TrainingResult:
    """Train a network in place; it ends on ``device``, channels last, in eval mode.

    A training continued from ``state`` ends where an uninterrupted one does; torch's global generators are left as they
    were found.

    Args:
        module: maps images (B, C, H, W) to outputs of the task; in train mode those of auxiliary heads may follow.
        images: the training images; a trailing batch of one is left out, batch norm has no variance to take there.
        config: the settings.
        device: where to train, in bfloat16 mixed precision if it has matrix units for that.
        task: loss and score.
        teacher: maps the same images to outputs that are learned from beside the targets; on ``device``, in eval mode,
            left as it is. See `rlprune.tasks.base.Task.distillation`.
        state: a file that holds the whole training state after every epoch and from which it continues if it exists;
            the caller removes it.
        on_epoch: called with every epoch's record, after the state was saved.
        on_step: called after every step with the steps done and the steps in all.

    Raises:
        UserError: a setting is out of range, the training diverged, or ``state`` is of another training.
    """
    module, full = unwrapped(module), config.resolved(len(images))
    learner = Learner(module, full, task, make_fabric(device))
    parts = {"module": module, "optimizer": learner.optimizer, "scheduler": learner.scheduler}
    snapshot = Snapshot(state, full.identity() | {"distilled": teacher is not None}, parts)
    history = snapshot.restore()
    for epoch in range(len(history) + 1, full.epochs + 1):
        start = time.perf_counter()
        with safe_backward(module):
            _epoch([learner], images, epoch, full, teacher, on_step)
        record = learner.record()
        if not math.isfinite(record["loss"]):
            raise UserError(
                f"training diverged at epoch {epoch}, its loss is {record['loss']}: use a lower lr than {full.lr:g}"
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
    config: TrainingConfig,
    *,
    device: torch.device,
    task: Task = CLASSIFICATION,
    teacher: nn.Module | None = None,
) -> None:
    """Train several networks as `train` does each of them; they share every batch.

    Images are read and augmented once for all, and the networks differ in nothing but themselves. On a CPU they learn
    side by side, each with its share of the threads.

    Args:
        modules: changed in place; each ends where it would have ended alone, if it draws nothing at random.
        images, config, device, task, teacher: as for `train`.

    Raises:
        UserError: a setting is out of range. A network that diverged is left with weights that are not finite.
    """
    full, fabric = config.resolved(len(images)), make_fabric(device)
    learners = [Learner(module, full, task, fabric) for module in modules]
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(safe_backward(module))
        run = stack.enter_context(side_by_side(device))
        for epoch in range(1, full.epochs + 1):
            _epoch(learners, images, epoch, full, teacher, run=run)
    for module in modules:
        module.eval()


def evaluate(
    module: nn.Module,
    images: ImageSet,
    *,
    device: torch.device,
    batch_size: int = 250,
    task: Task = CLASSIFICATION,
) -> tuple[float, float]:
    """The mean loss and score of a network over all images; a classifier's are cross-entropy (nats) and accuracy.

    Args:
        module: maps images (B, C, H, W) to outputs of the task; moved to ``device``, its training modes are kept.
        images: at least one image, taken in order and without augmentation.
        device: where to compute, in bfloat16 if it has matrix units for that.
        batch_size: images at a time, fewer where there is no memory; it does not change the result beyond rounding.
        task: loss and score.
    """
    chunks = Chunks(batch_size)
    module.to(device).to(memory_format=torch.channels_last)
    totals = torch.zeros(2, device=device)
    with evaluating(module), torch.inference_mode(), autocast(device):
        for inputs, targets in images.batches(batch_size, device=device):
            output = chunks(module, inputs)
            totals += tally(task, task.loss(output, targets), output, targets)
    loss, accuracy = (totals / len(images)).tolist()
    return loss, accuracy


def _epoch(
    learners: Sequence[Learner],
    images: ImageSet,
    epoch: int,
    config: Resolved,
    teacher: nn.Module | None = None,
    on_step: Callable[[int, int], None] | None = None,
    run: Run = in_turn,
) -> None:
    """Let every network learn from every batch of more than one image."""
    for learner in learners:
        learner.model.train()
    device = learners[0].fabric.device
    with _seeded(config.seed, epoch, device) as generator:
        batches = images.batches(config.batch_size, augment=config.augment, generator=generator, device=device)
        for inputs, targets in batches:
            if len(targets) == 1:
                continue
            lesson = None if teacher is None else _outputs_of(teacher, inputs)
            # Large images keep all cores busy, and several networks at once would want several times the memory.
            together = run if inputs[0, 0].numel() <= SMALL**2 else in_turn
            together(partial(Learner.step, inputs=inputs, targets=targets, lesson=lesson), learners)
            if on_step:
                scheduler = learners[0].scheduler
                on_step(scheduler.last_epoch, scheduler.total_steps - 1)


def _outputs_of(teacher: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad(), autocast(inputs.device):
        return teacher(inputs).float()


@contextmanager
def _seeded(seed: int, epoch: int, device: torch.device) -> Iterator[torch.Generator]:
    """A generator for the order and augmentation of an epoch, with torch's own (dropout) seeded meanwhile."""
    value = int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(value)
        # On a GPU of its own: what is drawn on the host would have every step wait for a copy of it.
        yield torch.Generator(device if device.type == "cuda" else "cpu").manual_seed(value)
