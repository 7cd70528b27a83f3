"""Which channels of a network live and die together, from one run of it."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import nn

import rlprune.tracing.data_rules
import rlprune.tracing.weight_rules  # noqa: F401  (both fill the table of rules)
from rlprune.tracing.closed import close
from rlprune.tracing.examples import Example
from rlprune.tracing.exploration import explore, keep_unreached
from rlprune.tracing.labels import changing
from rlprune.tracing.tracer import Tracer
from rlprune.utils.modules import INSTANCE_NORMS, copy_sharing_weights, evaluating, named_tensors

Side = tuple[str, str]
"""A layer, and which of its sides: ``"out"``, ``"in"``, or ``"fold"``, the inputs of one of a convolution's groups."""

NUMBERS = "its weight is used as numbers, too, in another way"
WITHIN = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Coupling:
    """What one run of a network has shown.

    Attributes:
        axes: side -> (size,) channel of every index; the same number is the same channel, 0 one that is never cut.
        follows: parameter or buffer -> the side that each of its dimensions follows, if any.
        positions: weight of a convolution or linear layer -> multiply-accumulates per entry.
        products: (entries,) channels along one side of a product of activations, multiply-accumulates per entry, and
            the layer in which it is.
        layers: all layers in the order of their first use.
        weights: layer with output channels of its own -> its weight.
        by_groups: weights that are cut by whole groups.
        reasons: layer -> why some of its output channels are never cut.
        trains: whether it has been run in training mode, too.
        steered: whether the way through it depends on the data.
        notes: channel -> where it met channels of other layers.
    """

    axes: dict[Side, np.ndarray]
    follows: dict[str, tuple[Side | None, ...]]
    positions: dict[str, int]
    products: list[tuple[np.ndarray, int, str]]
    layers: list[str]
    weights: dict[str, str]
    by_groups: frozenset[str]
    reasons: dict[str, str]
    trains: bool
    steered: bool
    notes: dict[int, tuple[str, ...]]

    @cached_property
    def order(self) -> dict[str, int]:
        """Layer -> position in the order of first use."""
        return {layer: position for position, layer in enumerate(self.layers)}


def trace_coupling(
    module: nn.Module, example: Example, by_groups: frozenset[str] | None = None, more: Sequence[Example] = ()
) -> Coupling:
    """Run a network and follow its channels.

    Args:
        module: the network; it is left as it was.
        example: one input.
        by_groups: weights that are cut by whole groups, for a network that is cut already.
        more: real inputs, which may take other ways than the example does.
    """
    # A copy, since a forward pass may leave things behind in the modules.
    return follow(copy_sharing_weights(module), example, by_groups, more)


def follow(
    module: nn.Module, example: Example, by_groups: frozenset[str] | None = None, more: Sequence[Example] = ()
) -> Coupling:
    """The same for a network that nobody needs afterwards, except for its tensors."""
    close(module)
    for part in module.modules():
        part._buffers = {name: None if buffer is None else buffer.clone() for name, buffer in part._buffers.items()}
    trace = Tracer(module, by_groups)
    trains = False
    with evaluating(module), torch.random.fork_rng(_cuda_devices(module)):
        explore(trace, module, example, more)
        if any(_is_idle(name, tensor, trace) for name, tensor in module.named_parameters()):
            trace.counting = False
            # Training mode without its noise: only what has parts of its own knows of it.
            for part in module.modules():
                part.training = any(True for _ in part.children())
            # Auxiliary heads run in training mode only. Others may want more than an image there, such as its labels.
            with suppress(Exception):
                trace.run(module, example)
                trains = True
    keep_unreached(trace, module)
    return _collect(module, trace, trains)


def _cuda_devices(module: nn.Module) -> list[torch.device]:
    return [device for device in {tensor.device for tensor in module.parameters()} if device.type == "cuda"]


def _is_idle(name: str, tensor: torch.Tensor, trace: Tracer) -> bool:
    return tensor.dim() > 1 and name not in trace.order


def _collect(module: nn.Module, trace: Tracer, trains: bool) -> Coupling:
    _tie_weights(trace)
    made = [outputs.numpy().ravel() for outputs, _ in trace.sides.values()]
    channels, why = trace.ties.resolve(np.concatenate([np.zeros(0, dtype=np.int64), *made]))
    tensors = named_tensors(module)
    first_names = {id(tensor): name for name, tensor in reversed(tensors.items())}
    axes: dict[Side, np.ndarray] = {}
    follows: dict[str, tuple[Side | None, ...]] = {}
    weights: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for name, (outputs, inputs) in trace.sides.items():
        layer = _layer(name)
        weights[layer] = name
        axes[layer, "out"], axes[layer, "in"] = channels[outputs.numpy()], channels[inputs.numpy()]
        follows[name] = _sides_of_weight(name, layer, tensors[name], trace, axes)
        stuck = [why[label] for label in outputs.tolist() if label in why]
        if stuck:
            reasons[layer] = stuck[0]
    for name, labels in trace.elements.items():
        if name not in follows:
            follows[name] = _sides_of_elements(name, channels[labels.numpy()], axes)
    for layer, labels in trace.norms.items():
        if isinstance(module.get_submodule(layer), INSTANCE_NORMS):
            axes[layer, "out"] = channels[labels.numpy()]
    for name, tensor in tensors.items():
        follows[name] = follows.get(first_names[id(tensor)], (None,) * tensor.dim())
    products = [(channels[labels.numpy()], times, layer) for labels, times, layer in trace.products]
    products += [(np.zeros(1, dtype=np.int64), macs, layer) for layer, (_, macs) in trace.refused.items()]
    reasons |= {layer: why for layer, (why, _) in trace.refused.items() if layer}
    layers = list(dict.fromkeys([*(_layer(name) for name in trace.order), *trace.refused]))
    by_groups = frozenset(trace.by_groups)
    notes: dict[int, tuple[str, ...]] = {}
    for noted, text in trace.notes:
        for channel in np.unique(channels[noted]).tolist():
            notes[channel] = (*notes.get(channel, ()), text)
    return Coupling(
        axes, follows, trace.positions, products, layers, weights, by_groups, reasons, trains, trace.steered, notes
    )


def _tie_weights(trace: Tracer) -> None:
    """Weights that are used as numbers, too."""
    for name in [name for name in trace.sides if name in trace.elements]:
        outputs, inputs = trace.sides[name]
        sides = (inputs, outputs) if name in trace.transposed else (outputs, inputs)
        trace.ties.weight(trace.elements[name], sides, NUMBERS)


def _layer(name: str) -> str:
    """The layer that a parameter belongs to; one that belongs to none is a layer by itself."""
    owner, _, leaf = name.rpartition(".")
    return owner if owner and leaf in WITHIN else name


def _sides_of_weight(
    name: str, layer: str, weight: torch.Tensor, trace: Tracer, axes: dict[Side, np.ndarray]
) -> tuple[Side | None, ...]:
    kernel = (None,) * (weight.dim() - 2)
    if name in trace.transposed:
        return (layer, "in"), (layer, "out"), *kernel
    if weight.shape[1] == len(axes[layer, "in"]):
        return (layer, "out"), (layer, "in"), *kernel
    if name in trace.by_groups:
        # It reads the very channels that it makes.
        del axes[layer, "in"]
        return (layer, "out"), None, *kernel
    axes[layer, "fold"] = axes[layer, "in"][: weight.shape[1]]
    return (layer, "out"), (layer, "fold"), *kernel


def _sides_of_elements(name: str, channels: np.ndarray, axes: dict[Side, np.ndarray]) -> tuple[Side | None, ...]:
    """A parameter that is used element by element follows a side along the only dimension on which it changes."""
    dims = changing(channels)
    follows: list[Side | None] = [None] * channels.ndim
    if len(dims) == 1:
        mine = np.moveaxis(channels, dims[0], 0).reshape(channels.shape[dims[0]], -1)[:, 0]
        side = (_layer(name), "out")
        if not np.array_equal(axes.setdefault(side, mine), mine):
            side = (name, "out")
            axes[side] = mine
        follows[dims[0]] = side
    return tuple(follows)
