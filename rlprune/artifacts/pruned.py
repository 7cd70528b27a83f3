"""Pruned folders: a smaller network as plan.json and model.safetensors, written and loaded again."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlprune._version import __version__
from rlprune.artifacts.model_card import model_card
from rlprune.errors import UserError
from rlprune.gating.checkpoint import save_gated
from rlprune.gating.skipping import SkippingNetwork
from rlprune.graph.kernels import GroupedKernels, put_kernels
from rlprune.graph.removal import without
from rlprune.graph.surgery import count_features, install
from rlprune.models.checkpoint import read_weights, save_weights
from rlprune.models.registry import rebuild_model
from rlprune.models.trust import located, remember, require_named
from rlprune.plans.plan import PruningPlan
from rlprune.utils.environment import today
from rlprune.utils.files import write_json, write_text
from rlprune.utils.modules import TRANSPOSED, named_tensors, opaque, shapes_of, unwrapped
from rlprune.utils.shapes import example, shape_of


def save_pruned(
    module: nn.Module, plan: PruningPlan, folder: Path, facts: Mapping[str, Any] | None = None, date: str | None = None
) -> None:
    """Write a pruned network as `model.safetensors` and `plan.json`, which `rlprune.load` reads back.

    Beside them `config.json`, by which model hubs know such a folder, and a model card.

    Args:
        module: the network.
        plan: what was kept; for one that comes from `rlprune.load` and was cut again, what was kept of that. The
            folder gets what is left of the dense network.
        folder: where to.
        facts: accuracies and costs for the card; without any, a card that is there stays.
        date: for the card; that of today where the network comes from no run.

    Raises:
        UserError: the network has parts whose weights are no tensors; or it was cut again, and the plan is that of the
            first cut or of no cut of this network.
    """
    module = unwrapped(module)
    for name, part in module.named_modules():
        if (what := opaque(part)) and not isinstance(part, torch.jit.ScriptModule):
            raise UserError(f"'{name}' is {what}, whose weights are no tensors: prune first and quantise afterwards")
    plan = _with_frozen(module, _since_dense(module, plan))
    plan.save(folder / "plan.json")
    write_json(folder / "config.json", {"library_name": "rlprune", "rlprune_version": __version__, **plan.network})
    if facts or not (folder / "README.md").is_file():
        write_text(folder / "README.md", model_card(plan, facts or {}, date or today()))
    if isinstance(module, SkippingNetwork):
        save_gated(module, folder)
        return
    if beside := [name for name, part in module.named_modules() if _keeps_more(part)]:
        told = f"what '{beside[0]}' keeps beside its tensors (get_extra_state) is not stored"
        warnings.warn(f"{told}: rlprune.load gives it what a new network has", stacklevel=2)
    # With the buffers that a state dict leaves out: they may be cut.
    save_weights(named_tensors(module), folder / "model.safetensors")


FROZEN = "frozen"
"""Where a plan keeps the names of the parameters that are not to be trained."""


def _with_frozen(module: nn.Module, plan: PruningPlan) -> PruningPlan:
    """A plan that names the parameters that are frozen now; a network with gates is not trained any more."""
    names = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
    frozen = {} if isinstance(module, SkippingNetwork) or not names else {FROZEN: names}
    rest = {key: value for key, value in plan.network.items() if key != FROZEN}
    return replace(plan, network={**rest, **frozen})


def _keeps_more(part: nn.Module) -> bool:
    """Whether a module has a state of its own that is no parameter and no buffer."""
    if type(part).get_extra_state is nn.Module.get_extra_state:
        return False
    state = part.get_extra_state()
    return state is not None and not (isinstance(state, Tensor) and state.numel() == 0)


PLAN, SHAPES = "_rlprune_plan", "_rlprune_shapes"
"""Where a loaded network keeps its plan and what its tensors' shapes were, so that it can be saved again."""


def load(folder: str | Path, device: str | torch.device = "cpu", *, model: str | None = None) -> nn.Module:
    """A pruned network from its folder, in eval mode; one that skips channels image by image where it was made to.

    Args:
        folder: a pruned folder (`plan.json` and `model.safetensors`) or a run folder that holds one.
        device: where it goes.
        model: `path/to/file.py:factory` that builds the dense network, where its plan names one that was moved or
            that you have never named yourself; without it such a file is not run.

    Raises:
        UserError: not such a folder, its weights do not fit its network, or it wants code run that nobody has named.
    """
    folder = pruned_folder(Path(folder))
    plan = read_plan(folder, model)
    if not {"model", "args", "classes", "image_size"} <= set(plan.network):
        raise UserError(f"{folder / 'plan.json'} does not say which network it prunes")
    if (folder / "gates.json").is_file():
        # Built upon what is here.
        from rlprune.gating.checkpoint import load_gated

        gated = load_gated(folder, plan).to(device)
        _remember(gated, plan)
        return gated
    module = rebuild_model(plan.network, architecture=True)
    without(module, plan.blocks)
    put_kernels(module, plan.kernels or {})
    tensors = read_weights(folder / "model.safetensors")
    expected = named_tensors(module)
    if different := sorted(set(expected) ^ set(tensors)):
        raise UserError(f"{folder} does not fit {plan.network['model']}: '{different[0]}' is only in one of them")
    (_check_counts if plan.kernels is None else _check_kernels)(module, plan, tensors, folder)
    install(module, module, tensors, trainable=True)
    count_features(module, example(shape_of(plan.network)))
    for name, parameter in module.named_parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(name not in plan.network.get(FROZEN, ()))
    _remember(module, plan)
    return module.to(device).eval()


def read_plan(folder: Path, model: str | None = None) -> PruningPlan:
    """The plan of a pruned folder, with the name that its network has from here.

    Args:
        folder: with `plan.json`.
        model: see `load`.

    Raises:
        UserError: there is no plan, or its network would run code that nobody here has named.
    """
    plan = PruningPlan.load(folder / "plan.json")
    if model is not None:
        remember(model)
    there = plan.network.get("model") if model is None else model
    if (here := located(there, folder)) != plan.network.get("model"):
        plan = replace(plan, network={**plan.network, "model": here})
    require_named(here, folder)
    return plan


def _remember(module: nn.Module, plan: PruningPlan) -> None:
    setattr(module, PLAN, plan)
    setattr(module, SHAPES, shapes_of(named_tensors(module)))


def _since_dense(module: nn.Module, plan: PruningPlan) -> PruningPlan:
    """What is left of the dense network, if the plan is for what another plan has left of it."""
    first = plan_in(module)
    if first is None or getattr(module, SHAPES) == shapes_of(named_tensors(module)):
        return plan
    if plan.kept == first.kept:
        raise UserError(
            "this network was cut again since it was loaded, and the plan is that of the first cut: give the plan of "
            "the second one, make_plan(graph, kept), with the graph of the loaded network"
        )
    return plan if plan.channels == first.channels else first.then(plan)


def plan_in(module: nn.Module) -> PruningPlan | None:
    """The plan that a network from `load` was cut by, or None."""
    return getattr(unwrapped(module), PLAN, None)


def open_folder(folder: str | Path) -> tuple[nn.Module, PruningPlan]:
    """What `load` gives, with the plan that the network was cut by."""
    module = load(folder)
    return module, getattr(module, PLAN)


def _check_counts(module: nn.Module, plan: PruningPlan, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Whether plain layers have as many outputs as their plan says."""
    layers = dict(module.named_modules())
    for group, kept in plan.kept.items():
        if not kept:
            continue
        name = group.partition("#")[0]
        if name not in layers and name not in tensors:
            raise UserError(f"{folder} does not fit its own plan: there is no layer '{name}'")
        weight, dense = tensors.get(f"{group}.weight"), getattr(layers.get(group), "weight", None)
        plain = dense is not None and not isinstance(layers[group], TRANSPOSED) and len(dense) == plan.channels[group]
        if plain and weight is not None and len(weight) != len(kept):
            there = f"its weights have {len(weight)}"
            raise UserError(f"{folder} does not fit its own plan: '{group}' keeps {len(kept)} channels, {there}")


def _check_kernels(module: nn.Module, plan: PruningPlan, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Whether tensors have the shapes that the plan gives them, and gather and scatter as it says."""
    for name, expected in named_tensors(module).items():
        if tensors[name].shape != expected.shape:
            here, there = tuple(expected.shape), tuple(tensors[name].shape)
            raise UserError(f"{folder} does not fit its own plan: '{name}' is {here} by it, and {there} in its weights")
    for name, part in module.named_modules():
        for leaf in ("inputs", "outputs") if isinstance(part, GroupedKernels) else ():
            given, expected = tensors[f"{name}.{leaf}"], part.get_buffer(leaf)
            if given.dtype != expected.dtype or not torch.equal(given, expected):
                raise UserError(f"{folder} does not fit its own plan: '{name}' has other {leaf} in its weights")


def pruned_folder(folder: Path) -> Path:
    """The folder with `model.safetensors` in or at `folder`.

    Raises:
        UserError: there is none.
    """
    for candidate in (folder, folder / "pruned"):
        if (candidate / "model.safetensors").is_file() and (candidate / "plan.json").is_file():
            return candidate
    raise UserError(f"{folder} holds no pruned network: expected plan.json and model.safetensors, or a finished run")
