"""The dense network: trained, or taken from the user's cache."""

import hashlib
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlprune.config.commands import Finetune, Search, Train
from rlprune.config.options import LONG, USUAL, Recovery
from rlprune.data.dataset import Dataset
from rlprune.data.holdout import hold_back
from rlprune.data.images import ImageSet
from rlprune.models.checkpoint import load_checkpoint, read_weights, save_weights, weights_hash
from rlprune.models.user_imports import sources
from rlprune.tasks.base import STANDARD
from rlprune.training.config import TrainingConfig
from rlprune.training.loop import train
from rlprune.utils.files import cache_folder, require_writable
from rlprune.utils.progress import Progress
from rlprune.workloads.workload import Workload

RECIPE = 2
"""Raised whenever the training of dense networks changes, so that cached ones are not mistaken for new ones."""
BEFORE = {"weight_decay": 5e-4, "label_smoothing": 0.0, "augment": STANDARD}
"""How dense networks stepped when that could not be chosen."""


def train_dense(workload: Workload, given: Search, progress: Progress, begun: Container[str] = ()) -> bool:
    """Train the dense network of a workload, or take it from the user's cache; one with a checkpoint is ready.

    Where only its last layer is fresh, it is trained on with the lower learning rate of a recovery. Where plans are
    fine-tuned on the way, what these are scored on is held back from it.

    The cache knows a network by everything that determines its weights, so that another seed, other images or another
    recipe train anew; an interrupted training continues.

    Args:
        workload: its module gets the weights.
        given: checkpoint, epochs, and how it steps.
        progress: told how far it is.
        begun: hashes of the dense weights that something was begun with. Before any images were held back it may have
            been with a network of all of them, which is then taken where the cache still has it.

    Returns:
        Whether images were held back from all of its training.
    """
    if given.checkpoint is not None and not workload.untrained:
        return False
    epochs = workload.data.train_epochs if given.train_epochs is None else given.train_epochs
    key = [RECIPE, torch.__version__, workload.network, _source(workload.network["model"]), workload.data.fingerprint]
    key += [epochs, given.lr, given.batch_size, given.seed, workload.device.type]
    key += [workload.weights()] if workload.untrained else []
    recipe = recipe_of(given, workload.data)
    # Networks of a time when these could not be chosen are known without them.
    key += [f"{name}={recipe[name]}" for name, usual in BEFORE.items() if recipe[name] != usual]
    images, path, unseen = workload.data.train, _cached(key), False
    if given.tunes and not _is_of(path, begun):
        images, held = hold_back(images, given.seed)
        path, unseen = _cached([*key, f"held back={len(held)}"]), given.checkpoint is None
    if path.is_file():
        progress.note(f"dense network from the cache: {path}")
        load_checkpoint(workload.module, path, name=workload.network["model"])
        return unseen
    require_writable(path.parent)
    state = path.with_suffix(".state")
    how: dict[str, Any] = {"recovery": workload.untrained, "stage": "training the dense network", "images": images}
    fit(workload.module, workload, epochs, given, state, progress, **how)
    save_weights(workload.module, path)
    state.unlink(missing_ok=True)
    return unseen


def _cached(key: list[Any]) -> Path:
    """Where the user's cache has the network that is known by this."""
    return cache_folder() / "dense" / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:24]}.safetensors"


def _is_of(path: Path, hashes: Container[str]) -> bool:
    """Whether a file is there and has weights with one of these hashes."""
    return path.is_file() and weights_hash(read_weights(path)) in hashes


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
    images: ImageSet | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> list[dict[str, float]]:
    """Train a module on a workload's training images.

    Args:
        module: the network, changed in place.
        workload: its images and device.
        epochs: passes over the training images.
        given: how it steps; the schedule is that of a pruned network.
        state: file from which an interrupted training continues.
        progress: told how far it is, as a stage of its own.
        recovery: the network is a pruned one that was trained before.
        stage: what this is called to whoever watches.
        teacher: see `rlprune.training.loop.train`.
        images: those of the training images that it learns from; all of them by default.
        on_step: called after every step with the steps done and the steps in all.

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
        if on_step:
            on_step(done, total)

    state.parent.mkdir(parents=True, exist_ok=True)
    schedule = (recovery and getattr(given, "schedule", None)) or USUAL
    result = train(
        module,
        workload.data.train if images is None else images,
        TrainingConfig(epochs=epochs, recovery=recovery, schedule=schedule, **recipe_of(given, workload.data)),
        device=workload.device,
        teacher=teacher,
        state=state,
        on_epoch=told,
        on_step=stepped,
    )
    return result.history


def recipe_of(given: Train | Search | Finetune, data: Dataset) -> dict[str, Any]:
    """What settings say of how a training steps, and what suits the images where they leave it open.

    Args:
        given: of a command that trains.
        data: the images.

    Returns:
        Attributes of `rlprune.training.config.TrainingConfig`.
    """
    return {
        "lr": given.lr,
        "batch_size": given.batch_size,
        "weight_decay": data.weight_decay if given.weight_decay is None else given.weight_decay,
        "label_smoothing": given.label_smoothing or 0.0,
        "augment": given.augment or STANDARD,
        "seed": given.seed,
    }


def finetuning_epochs(given: Recovery, data: Dataset, asked: int | None) -> int:
    """Passes over the images that a fine-tuning makes: as many as are asked for, or as suit schedule and images."""
    if asked is not None:
        return asked
    return data.long_epochs if given.schedule == LONG else data.finetune_epochs


def _source(model: str) -> str:
    """The text of a user's model file, and of what it imports from beside it: other code, other network."""
    path = Path(model.rpartition(":")[0])
    return sources(path.resolve()) if path.suffix == ".py" and path.is_file() else ""
