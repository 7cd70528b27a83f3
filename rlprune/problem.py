"""Data, network and structure brought together, checked before any work starts."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlprune.choice import CHOICES, parse_choice
from rlprune.config import as_dict, resolve
from rlprune.cost import Cost, build_cost
from rlprune.data import Dataset, load_data
from rlprune.device import evaluation_dtype, resolve_device, seed_everything
from rlprune.errors import UserError
from rlprune.evaluator import SliceRunner
from rlprune.files import cache_folder, require_writable
from rlprune.finite import require_finite_outputs
from rlprune.graph import Graph
from rlprune.models.checkpoint import load_checkpoint, save_weights, weights_hash
from rlprune.models.named import remember, require_named
from rlprune.models.registry import parse_model_args, rebuild_model
from rlprune.plan import PruningPlan
from rlprune.progress import Progress
from rlprune.pruner import load, pruned_folder
from rlprune.settings import Finetune, KeptData, Search, Train
from rlprune.trace import build_graph
from rlprune.training import train

DATA_SETTINGS = (
    "data", "data_root", "download", "image_size", "mean", "std", "search_images", "calibration_images", "workers",
)  # fmt: skip
KEPT = (*(name for name in DATA_SETTINGS if name not in ("workers", "download")), "seed")
"""What a plan keeps of the images that it was made for."""
LOOKED_AT = 8
"""Images that tell whether a network computes anything."""
RECIPE = 2
"""Raised whenever the training of dense networks changes, so that cached ones are not mistaken for new ones."""


@dataclass
class Problem:
    """A network, its structure and the images it works on.

    Attributes:
        data: the images.
        module: the dense network on `device`, in eval mode.
        network: how to build it again: model, args, classes, image size.
        graph: groups and index maps.
        cost: MACs and parameters.
        device: where everything runs.
    """

    data: Dataset
    module: nn.Module
    network: dict[str, Any]
    graph: Graph
    cost: Cost
    device: torch.device

    def runner(self, tell: Callable[[str], None] = lambda text: None) -> SliceRunner:
        """The sliced network with the calibration images on the device; `tell` hears of too little memory."""
        images, _ = self.calibration()
        return SliceRunner(self.module, self.graph, images, dtype=evaluation_dtype(self.device), tell=tell)

    def calibration(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Calibration images and labels on the device."""
        return self._whole("calibration")

    def search(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Search images and labels on the device."""
        return self._whole("search")

    def _whole(self, split: str) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = getattr(self.data, split).take(torch.arange(len(getattr(self.data, split))))
        return images.to(self.device, memory_format=torch.channels_last), labels.to(self.device)

    def weights(self) -> str:
        """Hash of the dense weights."""
        return weights_hash(self.module.state_dict())


def inputs_of(problem: Problem) -> dict[str, str]:
    """Hashes of what evaluations depend on besides the settings."""
    return {"dense weights": problem.weights(), "images": problem.data.fingerprint}


def read_data(settings: Mapping[str, Any]) -> Dataset:
    """The data set that settings name."""
    given = {key: settings[key] for key in DATA_SETTINGS if settings.get(key) is not None}
    return load_data(
        given.pop("data", "digits"), root=given.pop("data_root", None), seed=settings.get("seed") or 0, **given
    )


def open_problem(settings: Mapping[str, Any], progress: Progress, data: Dataset | None = None) -> Problem:
    """Read the images and build the network with fresh or given weights.

    Args:
        settings: `model`, `model_args`, `checkpoint`, `seed`, `device` and the data settings.
        progress: told what is going on.
        data: the images, where another problem has read them already.

    Raises:
        UserError: whatever cannot be used.
    """
    device = resolve_device(settings.get("device") or "auto")
    if data is None:
        progress.stage("reading images")
        data = read_data(settings)
    progress.stage("tracing the network")
    network, module, graph = open_network(settings, len(data.classes), data.image_size, device)
    _require_logits(module, data.image_size, device)
    if settings.get("checkpoint"):
        _require_finite(module, data, device, str(settings["checkpoint"]))
    return Problem(data, module, network, graph, build_cost(graph), device)


def open_network(
    settings: Mapping[str, Any], classes: int, image_size: int, device: torch.device
) -> tuple[dict[str, Any], nn.Module, Graph]:
    """Build a network with fresh or given weights and trace it.

    Args:
        settings: `model`, `model_args`, `checkpoint`, `seed` and which groups may be cut.
        classes: number of outputs.
        image_size: pixels a side.
        device: where it goes.

    Returns:
        How to build it again, the network in eval mode, and its structure.
    """
    seed_everything(settings.get("seed") or 0)
    network = {
        "model": settings["model"],
        "args": parse_model_args(settings.get("model_args")),
        "classes": classes,
        "image_size": image_size,
    }
    # Typed by a person, or found in results and allowed where those were read.
    remember(network["model"])
    module = rebuild_model(network)
    if settings.get("checkpoint"):
        load_checkpoint(module, settings["checkpoint"], name=network["model"])
    module = module.to(device).to(memory_format=torch.channels_last).eval()
    graph = build_graph(module, torch.zeros(1, 3, image_size, image_size, device=device), parse_choice(settings))
    return network | {key: settings[key] for key in CHOICES if settings.get(key)}, module, graph


def _require_logits(module: nn.Module, image_size: int, device: torch.device) -> None:
    with torch.inference_mode():
        output = module(torch.zeros(1, 3, image_size, image_size, device=device))
    if not isinstance(output, torch.Tensor) or output.dim() != 2:
        what = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise UserError(
            f"the network must return one tensor (images, classes) in eval mode; for one image it returns {what}: "
            "wrap it in a module that returns its logits, or use rlprune.trace.build_graph and rlprune.pruner.prune"
        )


def _require_finite(module: nn.Module, data: Dataset, device: torch.device, name: str) -> None:
    """Whether weights from a file compute something for the first calibration images."""
    images, _ = data.calibration.take(torch.arange(min(LOOKED_AT, len(data.calibration))))
    require_finite_outputs(module, images.to(device), name)


def open_pruned(
    source: Path, settings: Mapping[str, Any], progress: Progress
) -> tuple[Problem, nn.Module, PruningPlan]:
    """A pruned network with the problem it was pruned for, or with other images.

    Args:
        source: a run folder or a pruned folder.
        settings: as for `open_problem`; what they leave open is taken from the folder's plan. A `checkpoint` among them
            is for the dense network.
        progress: told what is going on.

    Returns:
        The problem (its dense network has fresh weights unless a checkpoint is given), the pruned network on its
        device, and its plan.

    Raises:
        UserError: whatever cannot be used.
    """
    folder = pruned_folder(source)
    plan = PruningPlan.load(folder / "plan.json")
    require_named(plan.network.get("model"), folder)
    problem = open_problem(settings_of_plan(settings, plan), progress)
    module = load(folder, problem.device)
    _require_finite(module, problem.data, problem.device, str(folder))
    if (here := len(problem.data.classes)) != (there := plan.network["classes"]):
        raise UserError(f"{problem.data.name} has {here} classes and the network in {folder} tells {there} apart")
    return problem, module, plan


def train_dense(problem: Problem, given: Search, epochs: int | None, progress: Progress) -> None:
    """Train the dense network of a problem, or take it from the user's cache.

    The cache knows a network by everything that determines its weights, so that another seed, other images or another
    recipe train anew; an interrupted training continues.

    Args:
        problem: its module gets the weights.
        given: learning rate, batch size and seed.
        epochs: of the training; None for the data set's default.
        progress: told how far it is.
    """
    epochs = problem.data.train_epochs if epochs is None else epochs
    key = [RECIPE, torch.__version__, problem.network, _source(problem.network["model"]), problem.data.fingerprint]
    key += [epochs, given.lr, given.batch_size, given.seed, problem.device.type]
    path = cache_folder() / "dense" / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:24]}.safetensors"
    if path.is_file():
        progress.note(f"dense network from the cache: {path}")
        load_checkpoint(problem.module, path, name=problem.network["model"])
        return
    require_writable(path.parent)
    state = path.with_suffix(".state")
    fit(problem.module, problem, epochs, given, state, progress)
    save_weights(problem.module, path)
    state.unlink(missing_ok=True)


def fit(
    module: nn.Module,
    problem: Problem,
    epochs: int,
    given: Train | Search | Finetune,
    state: Path,
    progress: Progress,
    *,
    recovery: bool = False,
    stage: str = "",
    teacher: nn.Module | None = None,
) -> list[dict[str, float]]:
    """Train a module on a problem's training images.

    Args:
        module: the network, changed in place.
        problem: its images and device.
        epochs: passes over the training images.
        given: learning rate, batch size and seed.
        state: file from which an interrupted training continues.
        progress: told how far it is, as a stage of its own.
        recovery: the network is a pruned one that was trained before.
        stage: what this is called to whoever watches.
        teacher: see `rlprune.training.train`.

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
        problem.data.train,
        epochs=epochs,
        lr=given.lr,
        recovery=recovery,
        batch_size=given.batch_size,
        seed=given.seed,
        device=problem.device,
        teacher=teacher,
        state=state,
        on_epoch=told,
        on_step=stepped,
    )
    return result.history


def settings_of_plan(settings: Mapping[str, Any], plan: PruningPlan) -> dict[str, Any]:
    """Settings completed by what a plan knows of its network and its images."""
    kept = plan.provenance.get("data_settings", {})
    read = as_dict(resolve(KeptData, kept))
    there = {name: read[name] for name in KEPT if name in kept}
    given = {key: value for key, value in settings.items() if value not in (None, False)}
    if given.get("data") not in (None, there.get("data")):
        there = {"image_size": plan.network.get("image_size")}
    network = {}
    if plan.network:
        choice = {key: plan.network[key] for key in CHOICES if key in plan.network}
        network = {"model": plan.network["model"], "model_args": plan.network["args"], **choice}
    elif "model" not in given:
        raise UserError("--model is missing: the plan does not say which network it is for")
    return dict(settings) | there | network | {key: value for key, value in given.items() if key not in network}


def _source(model: str) -> str:
    """The text of a user's model file: other code, other network."""
    path = Path(model.rpartition(":")[0])
    return path.read_text(encoding="utf-8") if path.suffix == ".py" and path.is_file() else ""
