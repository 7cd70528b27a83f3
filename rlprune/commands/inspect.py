"""`rlprune inspect`."""

from typing import Any

import torch

from rlprune.commands.base import command
from rlprune.config.commands import Inspect
from rlprune.config.resolve import as_dict
from rlprune.config.units import CHANNEL
from rlprune.cost.budget import parse_budget
from rlprune.cost.exact import build_cost
from rlprune.cost.projection import BudgetProjector
from rlprune.graph.structure import Graph, Group
from rlprune.models.registry import usual_shape
from rlprune.utils.device import resolve_device
from rlprune.utils.progress import Progress
from rlprune.utils.shapes import RGB, Shape, parse_sides, sides_of
from rlprune.workloads.workload import first_images, open_network, read_data

COARSE = 8
"""Fewer choices than these are worth a warning."""


@command(Inspect)
def inspect(given: Inspect, progress: Progress) -> dict[str, Any]:
    """Groups, what is coupled and why, each one's share of MACs and parameters, and the smallest feasible budget.

    A group's share is what goes when it alone is cut to its minimum, a residual block's what goes when it alone is
    taken out; shares overlap and do not add up to 1. Without `data` no images are read.
    """
    classes, shape, images = _inputs(given)
    progress.stage("tracing the network")
    _, _, graph = open_network(as_dict(given), classes, shape, resolve_device(given.device), images)
    cost = build_cost(graph)
    projector = BudgetProjector(cost, parse_budget(None), given.round_to, given.min_channels)
    groups = [
        {
            "group": group.name,
            "channels": group.channels,
            "width": group.width,
            "producers": [layer for layer in group.producers if layer in graph.layers],
            "consumers": list(group.consumers),
            "ties": list(group.ties),
            "macs_share": float(share[0]),
            "params_share": float(share[1]),
            "minimum": int(minimum),
            "traps": _coarse(group, int(step), int(minimum)) + (_traps(graph, group) if given.unit == CHANNEL else []),
        }
        for group, share, step, minimum in zip(
            graph.groups, cost.saved_alone(projector.minimum), projector.steps, projector.minimum, strict=True
        )
    ]
    blocks = [
        {
            "block": block.name,
            "groups": [graph.groups[number].name for number in block.groups],
            "remains": block.remains,
            "macs_share": float(share[0]),
            "params_share": float(share[1]),
        }
        for block, share in zip(graph.blocks, cost.saved_without(), strict=True)
    ]
    smallest = cost.ratios(projector.minimum)
    return {
        "model": given.model,
        "image_size": sides_of(*shape[1:]),
        "macs": int(cost.dense[0]),
        "params": int(cost.dense[1]),
        "groups": groups,
        "blocks": blocks,
        "unit": given.unit,
        "refused": graph.refused,
        "smallest_macs": float(smallest[0]),
        "smallest_params": float(smallest[1]),
    }


def _inputs(given: Inspect) -> tuple[int, Shape, list[torch.Tensor]]:
    """Number of classes, the shape of an image, and a few real ones where there are any."""
    if given.data is not None:
        data = read_data(as_dict(given))
        return len(data.classes), data.shape, first_images(data)
    classes, pixels = usual_shape(given.model)
    return classes, (given.channels or RGB, *parse_sides(given.image_size or pixels)), []


def _coarse(group: Group, step: int, minimum: int) -> list[str]:
    """Where there is little choice."""
    traps = []
    if group.width > 1:
        traps.append(f"cut in bundles of {group.width} outputs")
    if minimum == group.channels:
        traps.append("stays whole: it has no more channels than the smallest number allowed")
    elif (choices := -(-(group.channels - minimum) // step) + 1) < COARSE:
        traps.append(f"rounds coarsely: only {choices} numbers of channels are possible")
    return traps


def _traps(graph: Graph, group: Group) -> list[str]:
    """What to know before the channels of this group are cut."""
    kinds = {tie.partition(" in ")[0] for tie in group.ties}
    traps = [
        f"has a {kind}, whose MACs fall in proportion only, not with the square"
        for kind in ("depthwise convolution", "grouped convolution")
        if kind in kinds
    ]
    read = [axis for axis in graph.axes if axis.side == "in" and axis.layer in group.consumers]
    inputs = max((int((axis.slots == group.start).sum()) for axis in read), default=0)
    if not read:
        traps.append("no layer reads it: only sums or means over all of its channels are used")
    if inputs > group.width:
        traps.append(f"flattened: every channel is {inputs} inputs of a layer that reads it")
    return traps
