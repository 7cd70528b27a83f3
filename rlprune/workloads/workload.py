"""Data, network and structure opened together, checked before any work starts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from rlprune import registry
from rlprune.config.units import CHANNEL
from rlprune.cost.exact import build_cost
from rlprune.data.dataset import Dataset, load_data
from rlprune.errors import UserError
from rlprune.evaluation.network import PreparedNetwork
from rlprune.evaluation.sliced import SliceRunner
from rlprune.graph.structure import Graph
from rlprune.methods.criteria.base_choice import fixed_criteria
from rlprune.methods.units.base import Cutter, Unit
from rlprune.methods.units.channel import Channel
from rlprune.models.checkpoint import load_checkpoint, weights_hash
from rlprune.models.head import find_head
from rlprune.models.registry import rebuild_model
from rlprune.models.trust import remember
from rlprune.plans.plan import PruningPlan
from rlprune.tasks.base import AS_THEY_ARE
from rlprune.tasks.classification import CLASSIFICATION
from rlprune.tracing.build import build_graph
from rlprune.tracing.selection import CHOICES, EVERYTHING, parse_choice
from rlprune.training.loop import evaluate
from rlprune.utils.arguments import parse_model_args
from rlprune.utils.criteria import DEFAULT
from rlprune.utils.device import evaluation_dtype, resolve_device, seed_everything
from rlprune.utils.finite import require_finite_outputs
from rlprune.utils.progress import Progress
from rlprune.utils.shapes import RGB, Shape, as_settings, counted, example

DATA_SETTINGS = (
    "data", "data_root", "download", "image_size", "channels", "mean", "std", "search_images", "calibration_images",
    "workers",
)  # fmt: skip
KEPT = (*(name for name in DATA_SETTINGS if name not in ("workers", "download")), "seed")
"""What a plan keeps of the images that it was made for."""
ENOUGH, ENOUGH_EACH = 50, 5
"""Search images in all and of every class with which plans can be told apart."""
LOOKED_AT = 8
"""Images that tell which ways a network takes, and whether it computes anything."""


@dataclass
class Workload(PreparedNetwork):
    """What settings name, opened: evaluations see a `PreparedNetwork`, runs also ask for its slices and weights.

    Attributes:
        untrained: whether the last layer has fresh weights beside those of a checkpoint.
        unit: what goes.
    """

    untrained: bool = False
    unit: Unit = field(default_factory=Channel)
    _dense_accuracy: float | None = field(default=None, init=False, repr=False)

    def runner(self, tell: Callable[[str], None] = lambda text: None) -> SliceRunner:
        """The sliced network with the calibration images on the device; `tell` hears of too little memory."""
        images, _ = self.calibration()
        dtype, slicer = evaluation_dtype(self.device), self.cutter.slices()
        return SliceRunner(self.module, self.graph, images, dtype=dtype, tell=tell, slicer=slicer)

    @cached_property
    def cutter(self) -> Cutter:
        """What cuts the network; its weights must be those that are to be cut when it is asked for first."""
        return self.unit.cutter(self.module, self.graph)

    def cut(self, kept: np.ndarray) -> nn.Module:
        """A physically smaller copy of the network, of (all groups' channels,) bool, True where a channel stays."""
        return self.cutter.cut(kept)

    def complete(self, plan: PruningPlan) -> PruningPlan:
        """A plan with all that it takes to cut the network by it again."""
        return self.cutter.complete(plan)

    def weights(self) -> str:
        """Hash of the dense weights."""
        return weights_hash(self.module.state_dict())

    def dense_accuracy(self) -> float:
        """Of the dense network on the test images, measured once: whoever asks for it trains it no more."""
        if self._dense_accuracy is None:
            _, self._dense_accuracy = evaluate(self.module, self.data.test, device=self.device)
        return self._dense_accuracy


def inputs_of(workload: Workload) -> dict[str, str]:
    """Hashes of what evaluations depend on besides the settings."""
    return {"dense weights": workload.weights(), "images": workload.data.fingerprint}


def read_data(settings: Mapping[str, Any]) -> Dataset:
    """The data set that settings name."""
    given = {key: settings[key] for key in DATA_SETTINGS if settings.get(key) is not None}
    return load_data(
        given.pop("data", "digits"), root=given.pop("data_root", None), seed=settings.get("seed") or 0, **given
    )


def open_workload(settings: Mapping[str, Any], progress: Progress, data: Dataset | None = None) -> Workload:
    """Read the images and build the network with fresh or given weights.

    Args:
        settings: `model`, `model_args`, `checkpoint`, `seed`, `device` and the data settings.
        progress: told what is going on.
        data: the images, where another workload has read them already.

    Raises:
        UserError: whatever cannot be used.
    """
    device = resolve_device(settings.get("device") or "auto")
    if data is None:
        progress.stage("reading images")
        data = read_data(settings)
        if settings.get("evaluations") and not settings.get("search_images"):
            _tell_of_few(data, progress)
    _require_changeable(settings.get("augment"), data)
    progress.stage("tracing the network")
    network, module, untrained = _build(settings, len(data.classes), data.shape, device, progress.note)
    _require_outputs(module, data, device, progress)
    unit = _unit(settings)
    graph = _trace(settings, unit, module, data.shape, device, first_images(data))
    # Of this a network has to be known; all else that a criterion can be wrong in the settings themselves have told.
    fixed_criteria(settings.get("criterion") or DEFAULT, graph)
    if settings.get("checkpoint"):
        require_finite(module, data, device, str(settings["checkpoint"]))
    return Workload(data, module, network, graph, build_cost(graph), device, untrained, unit)


def _tell_of_few(data: Dataset, progress: Progress) -> None:
    """Say so where there are too few images to tell plans apart, and how many to ask for."""
    few, whole = len(data.search), len(data.search) + len(data.train)
    wanted = min(max(ENOUGH, ENOUGH_EACH * len(data.classes)), whole // 4)
    if few < wanted:
        progress.note(
            f"plans are ranked on {few} of {whole} training images, where each is {100 / few:.0f} points of accuracy: "
            f"ask for more with --search-images {wanted}, or add images"
        )


def open_network(
    settings: Mapping[str, Any],
    classes: int,
    shape: Shape,
    device: torch.device,
    images: Sequence[torch.Tensor] = (),
) -> tuple[dict[str, Any], nn.Module, Graph]:
    """Build a network with fresh or given weights and trace it.

    Args:
        settings: `model`, `model_args`, `checkpoint`, `seed` and which groups may be cut.
        classes: number of outputs.
        shape: (C, H, W) of an image.
        device: where it goes.
        images: a few real ones (1, C, H, W), for networks that branch on what they see.

    Returns:
        How to build it again, the network in eval mode, and its structure.
    """
    network, module, _ = _build(settings, classes, shape, device)
    return network, module, _trace(settings, _unit(settings), module, shape, device, images)


def _unit(settings: Mapping[str, Any]) -> Unit:
    """What goes."""
    unit: Unit = registry.make("unit", settings.get("unit") or CHANNEL)
    return unit


def _build(
    settings: Mapping[str, Any],
    classes: int,
    shape: Shape,
    device: torch.device,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[dict[str, Any], nn.Module, bool]:
    """How to build the network again, the network with its weights, and whether its last layer has fresh ones alone."""
    seed_everything(settings.get("seed") or 0)
    network = {
        "model": settings["model"],
        "args": parse_model_args(settings.get("model_args")),
        "classes": classes,
        **as_settings(shape),
    }
    # Typed by a person, or found in results and allowed where those were read.
    remember(network["model"])
    network |= {key: settings[key] for key in (*CHOICES, "new_head") if settings.get(key)}
    module, whole = rebuild_model(network, tell), True
    if settings.get("checkpoint"):
        head = find_head(module, shape) if settings.get("new_head") else None
        whole = load_checkpoint(module, settings["checkpoint"], name=network["model"], head=head)
        if head is not None:
            told = "has the weights of the checkpoint, too" if whole else "is fresh, all else is that of the checkpoint"
            tell(f"the last layer '{head}' {told}")
    module = module.to(device).to(memory_format=torch.channels_last).eval()
    if shape[0] != RGB:
        _require_channels(module, example(shape, device=device), network["model"])
    return network, module, not whole


def _trace(
    settings: Mapping[str, Any],
    unit: Unit,
    module: nn.Module,
    shape: Shape,
    device: torch.device,
    images: Sequence[torch.Tensor],
) -> Graph:
    real = [image.to(device) for image in images]
    choice = parse_choice(settings)
    # What the choice leaves of the channels says nothing of other units.
    traced = choice if isinstance(unit, Channel) else EVERYTHING
    first = example(shape, device=device)
    return unit.structure(module, build_graph(module, first, traced, real), choice, first)


def _require_channels(module: nn.Module, images: torch.Tensor, name: str) -> None:
    """Whether a network takes images that are not red, green and blue."""
    try:
        with torch.inference_mode():
            module(images)
    except RuntimeError as error:
        raise UserError(
            f"the network does not take images of {counted(images.shape[1])}: {error}; give --channels {RGB}, or let "
            f"the factory in {name} make its first layer for in_channels, which it is given if it asks for it"
        ) from error


def _require_changeable(augment: str | None, data: Dataset) -> None:
    if augment not in (None, AS_THEY_ARE) and not data.train.changeable:
        raise UserError(
            f"--augment {augment}: the images of {data.name} are centred and of one size, mirrored or moved ones never "
            "occur; leave it out"
        )


def _require_outputs(module: nn.Module, data: Dataset, device: torch.device, progress: Progress) -> None:
    """Whether the network returns what a classifier returns, with an output for every class."""
    try:
        with torch.inference_mode():
            output = module(example(data.shape, device=device))
    # Anybody's code runs here; tracing says what is wrong with it.
    except Exception:
        return
    CLASSIFICATION.check(output)
    outputs, classes = output.shape[1], len(data.classes)
    told = f"the network has {outputs} output{'s' * (outputs > 1)} and {data.name} {classes} classes"
    if outputs < classes:
        raise UserError(f"{told}: let its factory take num_classes, or give it a fresh last layer with --new-head")
    if outputs > classes:
        progress.note(f"{told}: the others are wrong for every image; --new-head gives it a fresh last layer")


def require_finite(module: nn.Module, data: Dataset, device: torch.device, name: str) -> None:
    """Whether weights from a file compute something for the first calibration images."""
    require_finite_outputs(module, torch.cat(first_images(data)).to(device), name)


def first_images(data: Dataset) -> list[torch.Tensor]:
    """The first calibration images, (1, C, H, W) each."""
    images, _ = data.calibration.take(torch.arange(min(LOOKED_AT, len(data.calibration))))
    return list(images.split(1))
