"""Which channels live and die together.

The coupling is traced by torch-pruning's dependency graph (Fang et al., DepGraph, 2023, arXiv 2301.12900), and put
into plain integers here; nothing else touches torch-pruning.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from rlprune.errors import UserError
from rlprune.modules import CONVOLUTIONS, NORMS, axis_size, evaluating, is_depthwise

WEIGHTED = (*CONVOLUTIONS, nn.Linear)
KNOWN = (*WEIGHTED, *NORMS)


@dataclass(frozen=True)
class Coupled:
    """Channels that are coupled.

    Attributes:
        channels: how many there are.
        sides: (layer, ``"out"`` or ``"in"``) -> indices into that side of the layer, and the channel of each; layers
            in the order in which the network calls them.
    """

    channels: int
    sides: dict[tuple[str, str], tuple[list[int], list[int]]]


def trace_coupling(
    module: nn.Module, example: torch.Tensor, called: list[str]
) -> tuple[dict[str, Coupled], dict[str, str]]:
    """What is coupled in a network.

    Args:
        module: the network; it is left as it was.
        example: (1, C, H, W) one input.
        called: its layers in the order of the first call.

    Returns:
        First layer that produces just these channels -> what can be cut, in the order of the first call; and
        layer -> why it cannot.

    Raises:
        UserError: the network cannot be traced.
    """
    names = {layer: name for name, layer in module.named_modules()}
    order = {name: position for position, name in enumerate(called)}
    shared = _shared_parameters(module)
    cut: dict[str, Coupled] = {}
    refused: dict[str, str] = {}
    for group in _traced_groups(module, example):
        first = _first_producer(group, names, order)
        if first is None:
            continue
        reason = _why_not(group, names, shared)
        if reason:
            refused[first] = reason
            continue
        sides: dict[tuple[str, str], tuple[list[int], list[int]]] = {}
        for item in group:
            if (layer := item.dep.target.module) in names:
                sides.setdefault((names[layer], _side(item)), (list(item.idxs), list(item.root_idxs)))
        in_order = sorted(sides.items(), key=lambda entry: order.get(entry[0][0], len(order)))
        cut[first] = Coupled(len(group[0].idxs), dict(in_order))
    return {first: cut[first] for first in sorted(cut, key=order.__getitem__)}, refused


def _first_producer(group: Any, names: Mapping[nn.Module, str], order: Mapping[str, int]) -> str | None:
    layers = [item.dep.target.module for item in group if _is_out(item)]
    whole = [layer for layer in layers if isinstance(layer, WEIGHTED) and axis_size(layer, "out") == len(group[0].idxs)]
    return min((names[layer] for layer in whole if names[layer] in order), key=order.__getitem__, default=None)


def _traced_groups(module: nn.Module, example: torch.Tensor) -> list[Any]:
    import torch_pruning as tp

    grads = {parameter: parameter.requires_grad for parameter in module.parameters()}
    try:
        with evaluating(module.requires_grad_(True)), torch.enable_grad():
            return list(_groups(tp.DependencyGraph().build_dependency(module, example, verbose=False)))
    # The network has run before, so that whatever goes wrong here is what torch-pruning does not understand.
    except Exception as error:
        raise UserError(
            f"this network cannot be traced: torch-pruning ends in {type(error).__name__}: {error}"
        ) from error
    finally:
        for parameter, needed in grads.items():
            parameter.requires_grad_(needed)


def _groups(traced: Any) -> Iterator[Any]:
    """torch-pruning's groups, each from the smallest layer in it.

    A layer that is tied to a concatenation then falls into several groups. torch-pruning's own enumeration starts
    from the last layer and finds a single group there that cannot be cut evenly.
    """
    roots = [layer for layer in traced.module2node if isinstance(layer, WEIGHTED) and not is_depthwise(layer)]
    seen: set[nn.Module] = set()
    for root in sorted(roots, key=lambda layer: axis_size(layer, "out")):
        if root not in seen:
            cut = traced.get_pruner_of_module(root).prune_out_channels
            group = traced.get_pruning_group(root, cut, list(range(axis_size(root, "out"))))
            seen |= {item.dep.target.module for item in group if _is_out(item)}
            yield group


def _is_out(item: Any) -> bool:
    return "out_channels" in item.dep.handler.__name__


def _side(item: Any) -> str:
    layer = item.dep.target.module
    return "out" if _is_out(item) or isinstance(layer, NORMS) or is_depthwise(layer) else "in"


def _shared_parameters(module: nn.Module) -> set[int]:
    """Identities of the parameters that several layers have in common."""
    everyone = [id(parameter) for layer in module.modules() for parameter in layer.parameters(recurse=False)]
    return {identity for identity in everyone if everyone.count(identity) > 1}


def _why_not(group: Any, names: Mapping[nn.Module, str], shared: set[int]) -> str | None:
    """The reason why a traced group cannot be cut, or None."""
    if len(group[0].idxs) < 2:
        return "it has a single channel"
    reasons = (_why_not_item(item, len(group[0].idxs), names, shared) for item in group)
    return next((reason for reason in reasons if reason), None)


def _why_not_item(item: Any, channels: int, names: Mapping[nn.Module, str], shared: set[int]) -> str | None:
    from torch_pruning import ops

    node = item.dep.target
    layer = node.module
    if node.type == ops.OPTYPE.OUTPUT or (_is_out(item) and not node.outputs):
        return "its channels are the network's output"
    if node.type == ops.OPTYPE.PARAMETER:
        return "it is tied to a parameter outside a layer"
    if isinstance(layer, CONVOLUTIONS) and layer.groups > 1 and not is_depthwise(layer):
        return "it is tied to a grouped convolution"
    if layer not in names:
        return None  # an operation
    if not isinstance(layer, KNOWN):
        return f"it is tied to a {type(layer).__name__}, which is not supported"
    if not isinstance(layer, NORMS) and "weight" not in layer._parameters:
        return "it is tied to a layer whose weight is computed from other parameters"
    if any(id(parameter) in shared for parameter in layer.parameters()):
        return "it is tied to a parameter that several layers share"
    if not _covers_evenly(item, channels, axis_size(layer, _side(item))):
        return f"its channels do not map evenly onto {names[layer]}"
    return None


def _covers_evenly(item: Any, channels: int, size: int) -> bool:
    """Whether an axis has every channel of the group, and all equally often."""
    counts = np.bincount(np.asarray(item.root_idxs), minlength=channels)
    return max(item.idxs) < size and len(counts) == channels and bool((counts == counts[0]).all())
