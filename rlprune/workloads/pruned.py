"""A pruned network with the workload it was pruned for."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from rlprune.artifacts.pruned import load, pruned_folder, read_plan
from rlprune.config.options import KeptData
from rlprune.config.resolve import as_dict, resolve
from rlprune.cost.exact import build_cost
from rlprune.errors import UserError, unknown
from rlprune.graph.kernel_structure import kernel_structure
from rlprune.plans.plan import PruningPlan
from rlprune.tracing.selection import CHOICES
from rlprune.utils.progress import Progress
from rlprune.utils.shapes import counted, shape_of
from rlprune.workloads.workload import KEPT, Workload, open_workload, require_finite


def open_pruned(
    source: Path, settings: Mapping[str, Any], progress: Progress
) -> tuple[Workload, nn.Module, PruningPlan]:
    """A pruned network with the workload it was pruned for, or with other images.

    Args:
        source: a run folder or a pruned folder.
        settings: as for `open_workload`; what they leave open is taken from the folder's plan. A `checkpoint` among
            them is for the dense network.
        progress: told what is going on.

    Returns:
        The workload (its dense network has fresh weights unless a checkpoint is given), the pruned network on its
        device, and its plan.

    Raises:
        UserError: whatever cannot be used.
    """
    folder = pruned_folder(source)
    plan = read_plan(folder)
    workload = as_planned(open_workload(settings_of_plan(settings, plan), progress), plan)
    module = load(folder, workload.device)
    if (here := workload.data.shape[0]) != (there := shape_of(plan.network)[0]):
        raise UserError(f"{workload.data.name} is read with {counted(here)} and the network in {folder} takes {there}")
    require_finite(module, workload.data, workload.device, str(folder))
    if (here := len(workload.data.classes)) != (there := plan.network["classes"]):
        raise UserError(f"{workload.data.name} has {here} classes and the network in {folder} tells {there} apart")
    return workload, module, plan


def as_planned(workload: Workload, plan: PruningPlan) -> Workload:
    """A workload with the groups that a plan is of: of channels as they are, of kernels the layers that it names.

    Raises:
        UserError: the plan cuts kernels of a layer that the network does not have.
    """
    if plan.kernels is None:
        return workload
    layers = workload.graph.layers
    for name in plan.channels:
        if name not in layers:
            raise UserError(f"the plan does not belong to this network: {unknown('layer', name, layers)}")
    inputs = {name: workload.module.get_parameter(f"{name}.weight").shape[1] for name in plan.channels}
    graph = kernel_structure(workload.graph, inputs, {})
    plan.mask(graph)
    return replace(workload, graph=graph, cost=build_cost(graph))


def settings_of_plan(settings: Mapping[str, Any], plan: PruningPlan) -> dict[str, Any]:
    """Settings completed by what a plan knows of its network and its images."""
    kept = plan.provenance.get("data_settings", {})
    read = as_dict(resolve(KeptData, kept))
    there = {name: read[name] for name in KEPT if name in kept}
    given = {key: value for key, value in settings.items() if value not in (None, False)}
    if given.get("data") not in (None, there.get("data")):
        there = {key: plan.network.get(key) for key in ("image_size", "channels")}
    network = {}
    if plan.network:
        choice = {key: plan.network[key] for key in (*CHOICES, "new_head") if key in plan.network}
        network = {"model": plan.network["model"], "model_args": plan.network["args"], **choice}
    elif "model" not in given:
        raise UserError("--model is missing: the plan does not say which network it is for")
    return dict(settings) | there | network | {key: value for key, value in given.items() if key not in network}
