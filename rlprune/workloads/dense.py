"""The dense network: trained, or taken from the user's cache."""

import hashlib
from pathlib import Path

import torch
from torch import nn

from rlprune.config.commands import Finetune, Search, Train
from rlprune.models.checkpoint import load_checkpoint, save_weights
from rlprune.models.user_imports import sources
from rlprune.training.config import TrainingConfig
from rlprune.training.loop import train
from rlprune.utils.files import cache_folder, require_writable
from rlprune.utils.progress import Progress
from rlprune.workloads.workload import Workload

RECIPE = 2
"""Raised whenever the training of dense networks changes, so that cached ones are not mistaken for new ones."""


def train_dense(workload: Workload, given: Search, progress: Progress) -> None:
    """Train the dense network of a workload, or take it from the user's cache; one with a checkpoint is ready.

    Where only its last layer is fresh, it is trained on with the lower learning rate of a recovery.

    The cache knows a network by everything that determines its weights, so that another seed, other images or another
    recipe train anew; an interrupted training continues.

    Args:
        workload: its module gets the weights.
        given: checkpoint, epochs, learning rate, batch size and seed.
        progress: told how far it is.
    """
    if given.checkpoint is not None and not workload.untrained:
        return
    epochs = workload.data.train_epochs if given.train_epochs is None else given.train_epochs
    key = [RECIPE, torch.__version__, workload.network, _source(workload.network["model"]), workload.data.fingerprint]
    key += [epochs, given.lr, given.batch_size, given.seed, workload.device.type]
    key += [workload.weights()] if workload.untrained else []
    path = cache_folder() / "dense" / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:24]}.safetensors"
    if path.is_file():
        progress.note(f"dense network from the cache: {path}")
        load_checkpoint(workload.module, path, name=workload.network["model"])
        return
    require_writable(path.parent)
    state = path.with_suffix(".state")
    stage = "training the dense network"
    fit(workload.module, workload, epochs, given, state, progress, recovery=workload.untrained, stage=stage)
    save_weights(workload.module, path)
    state.unlink(missing_ok=True)


def fit(
    module: nn.Module,
    workload: Workload,
    epochs: int,
    given: Train | Search | Finetune,
    state: Path,
    progress: Progress,
    *,
    recovery: bool = False,
    stage: str = "",
    teacher: nn.Module | None = None,
) -> list[dict[str, float]]:
    """Train a module on a workload's training images.

    Args:
        module: the network, changed in place.
        workload: its images and device.
        epochs: passes over the training images.
        given: learning rate, batch size and seed.
        state: file from which an interrupted training continues.
        progress: told how far it is, as a stage of its own.
        recovery: the network is a pruned one that was trained before.
        stage: what this is called to whoever watches.
        teacher: see `rlprune.training.loop.train`.

    Returns:
        One record an epoch.
    """
    facts: dict[str, str] = {}
    begun = False

    def told(record: dict[str, float]) -> None:
        facts["epoch"] = f"{record['epoch']:.0f}/{epochs}"
        facts["loss"] = f"{record['loss']:.3f}"
        facts["accuracy"] = f"{100 * record['accuracy']:.1f} %"

    def stepped(done: int, total: int) -> None:
        nonlocal begun
        if not begun:
            begun = True
            name = stage or ("fine-tuning" if recovery else "training the dense network")
            progress.stage(name, total, done - 1)
        progress.update(done, **facts)

    state.parent.mkdir(parents=True, exist_ok=True)
    result = train(
        module,
        workload.data.train,
        TrainingConfig(epochs=epochs, lr=given.lr, recovery=recovery, batch_size=given.batch_size, seed=given.seed),
        device=workload.device,
        teacher=teacher,
        state=state,
        on_epoch=told,
        on_step=stepped,
    )
    return result.history


def _source(model: str) -> str:
    """The text of a user's model file, and of what it imports from beside it: other code, other network."""
    path = Path(model.rpartition(":")[0])
    return sources(path.resolve()) if path.suffix == ".py" and path.is_file() else ""
