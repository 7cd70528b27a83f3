"""How layers couple channels: convolutions, linear layers, normalisation, products of activations, attention."""

import torch
from torch import Tensor

from rlprune.tracing.labels import ALWAYS, first, varies, varying
from rlprune.tracing.operations import Call, not_followed, rule
from rlprune.tracing.tracer import COMPUTED, INPUT, Tracer, unknown
from rlprune.utils.modules import cuts_whole_groups

GROUPED = "it is tied to a grouped transposed convolution"
TWO_SIDES = "it is multiplied with other channels"


@rule("conv1d", "conv2d", "conv3d", "convolution", "_convolution")
def convolution(trace: Tracer, call: Call) -> None:
    """Output channels are the weight's own; input channels are what is read."""
    if call["transposed"]:
        return transposed(trace, call)
    weight, groups, out = call["weight"], call["groups"], call.out
    channel = out.dim() - weight.dim() + 1
    read = trace.along(trace.labels(call["input"]), channel)
    name = trace.name(weight)
    if name is None:
        return _computed(trace, read, call, out.numel() * weight[0].numel())
    outputs, inputs = _weight(trace, name, len(weight), read)
    if groups > 1:
        _grouped(trace, name, groups, outputs, inputs)
    return _produced(trace, call, name, outputs, channel, out.numel() // len(outputs))


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed(trace: Tracer, call: Call) -> None:
    """The weight's first dimension is read; grouped ones are left whole, since theirs mixes both sides."""
    weight, source, out = call["weight"], call["input"], call.out
    channel = out.dim() - weight.dim() + 1
    read = trace.along(trace.labels(source), channel)
    name = trace.name(weight)
    if name is None or call["groups"] > 1:
        why = COMPUTED if name is None else GROUPED
        return _computed(trace, read, call, source.numel() * weight[0].numel(), why)
    outputs, _ = _weight(trace, name, weight.shape[1], read, transposed=True)
    return _produced(trace, call, name, outputs, channel, source.numel() // len(weight))


@rule("linear")
def linear(trace: Tracer, call: Call) -> None:
    """As a convolution, with the channels last."""
    source, out = call["input"], call.out
    read = trace.along(trace.labels(source), -1)
    name = trace.name(call["weight"])
    if name is None:
        return _computed(trace, read, call, out.numel() * len(read))
    outputs, _ = _weight(trace, name, len(call["weight"]), read)
    return _produced(trace, call, name, outputs, out.dim() - 1, out.numel() // len(outputs))


def _weight(trace: Tracer, name: str, made: int, read: Tensor, transposed: bool = False) -> tuple[Tensor, Tensor]:
    """Labels of the output and input channels of a weight that reads these."""
    outputs, inputs = trace.weight(name, made, len(read), transposed)
    trace.ties.tie(read, inputs, INPUT)
    return outputs, inputs


def _grouped(trace: Tracer, name: str, groups: int, outputs: Tensor, inputs: Tensor) -> None:
    read, made = inputs.view(groups, -1), outputs.view(groups, -1)
    if _by_groups(trace, name, read):
        trace.ties.tie(made, read[:, :1].expand_as(made))
        trace.note(inputs, "depthwise convolution" if groups == len(inputs) else "grouped convolution")
    elif trace.deciding:
        trace.ties.even(made, [0])


def _by_groups(trace: Tracer, name: str | None, table: Tensor) -> bool:
    """Whether whole groups go, where they are many and narrow; otherwise the same positions inside each do.

    The (groups, channels of each) labels are tied so.
    """
    if trace.deciding and name is not None and cuts_whole_groups(len(table), table.numel()):
        trace.by_groups.add(name)
    whole = name in trace.by_groups
    if whole or trace.deciding:
        trace.ties.even(table, [1 if whole else 0])
    return whole


def _produced(trace: Tracer, call: Call, name: str, outputs: Tensor, channel: int, positions: int) -> None:
    trace.tie_parameter(call["bias"], outputs)
    trace.count(name, positions)
    trace.put(call.out, outputs.view(-1, *[1] * (call.out.dim() - channel - 1)))


def _computed(trace: Tracer, read: Tensor, call: Call, macs: int, why: str = COMPUTED) -> None:
    trace.ties.keep(read, why)
    for parameter in (call["weight"], call["bias"]):
        if parameter is not None:
            trace.ties.keep(trace.labels(parameter), why)
    trace.refuse(why, macs)


@rule("lstm", "gru", "rnn_tanh", "rnn_relu", "bilinear")
def whole(trace: Tracer, call: Call) -> None:
    """Layers that stay whole and are counted: every step of every sequence goes through all their weights."""
    unknown(trace, call)
    steps = call.args[0].shape[:-1].numel()
    for weight in Call.tensors([call.args, call.kwargs]):
        name = trace.name(weight)
        if name is not None and weight.dim() > 1:
            outputs, inputs = trace.weight(name, *weight.shape)
            trace.ties.keep(torch.cat([outputs, inputs]), not_followed(call))
            trace.count(name, steps)


@rule("batch_norm", "instance_norm")
def channel_norm(trace: Tracer, call: Call) -> None:
    """Every channel by itself."""
    _normalised(trace, call, trace.along(trace.labels(call["input"]), 1))


def _normalised(trace: Tracer, call: Call, labels: Tensor) -> None:
    parameters = [call[name] for name in ("weight", "bias", "running_mean", "running_var")]
    for parameter in parameters:
        trace.tie_parameter(parameter, labels)
    if all(parameter is None for parameter in parameters):
        trace.norm(labels)
    trace.put(call.out, labels.view(-1, *[1] * (call.out.dim() - 2)))


@rule("layer_norm", "rms_norm")
def layer_norm(trace: Tracer, call: Call) -> None:
    """Over whichever channels are left."""
    labels = trace.labels(call["input"])
    dims = len(call["normalized_shape"])
    leading = list(range(labels.dim() - dims))
    labels = trace.ties.even(labels, leading)
    for name in ("weight", "bias"):
        trace.tie_parameter(call[name], labels[(0,) * len(leading)])
    trace.put(call.out, labels)


@rule("group_norm")
def group_norm(trace: Tracer, call: Call) -> None:
    """As a grouped convolution."""
    labels = trace.along(trace.labels(call["input"]), 1)
    _by_groups(trace, trace.name(call["weight"]), labels.view(call["num_groups"], -1))
    _normalised(trace, call, labels)


@rule("matmul", "bmm", "mm")
def product(trace: Tracer, call: Call) -> None:
    """Activations times activations: what is summed over is the same on both sides."""
    left, right = call["self"], call["mat2"] if call["other"] is None else call["other"]
    if min(left.dim(), right.dim()) < 2:
        return _give_up(trace, call, left, right)
    if right.dim() == 2 and (name := trace.name(right)):
        return _linear(trace, call, name)
    one, other = trace.labels(left), trace.labels(right)
    batch = torch.broadcast_shapes(one.shape[:-2], other.shape[:-2])
    one, other = one.expand(*batch, *one.shape[-2:]), other.expand(*batch, *other.shape[-2:])
    rows, columns = varies(one, one.dim() - 2), varies(other, other.dim() - 1)
    if rows and columns:
        return _give_up(trace, call, left, right)
    summed = _contract(trace, one, other)
    kept = one if rows else other if columns else None
    entries = int(call.out.numel()) // int(torch.Size(batch).numel())
    if kept is not None and summed is not None:
        return _give_up(trace, call, left, right)
    if kept is not None:
        free = first(kept, [kept.dim() - (1 if rows else 2)])
        along = left.shape[-2] if rows else right.shape[-1]
        trace.product(free.flatten(), entries // along * left.shape[-1])
        trace.put(call.out, free)
    else:
        rest = torch.tensor([ALWAYS]) if summed is not None else _rest(one, other).expand(*batch, 1, 1)
        each = (rest, entries * left.shape[-1]) if summed is None else (summed, entries)
        trace.product(each[0].flatten(), each[1])
        trace.put(call.out, rest)
    return None


def _linear(trace: Tracer, call: Call, name: str) -> None:
    """A weight with its inputs first."""
    source, weight, out = call.args[0], call.args[1], call.out
    outputs, _ = _weight(trace, name, weight.shape[1], trace.along(trace.labels(source), -1), transposed=True)
    _produced(trace, call, name, outputs, out.dim() - 1, out.numel() // len(outputs))


def _contract(trace: Tracer, one: Tensor, other: Tensor) -> Tensor | None:
    """Tie the summed side of a product; its labels (batch, summed), or None where nothing there can be cut."""
    dim = one.dim() - 2
    # A single channel may be all that is left.
    single = one.shape[-1] == 1 and one.any() and other.any()
    if not (single or varies(one, dim + 1) or varies(other, dim)):
        return None
    left = first(trace.ties.even(one, [dim]), [dim]).squeeze(-2)
    right = first(trace.ties.even(other, [dim + 1]), [dim + 1]).squeeze(-1)
    trace.ties.tie(left, right, INPUT)
    return left


def _rest(one: Tensor, other: Tensor) -> Tensor:
    """Labels of the batch dimensions, which both factors may have."""
    labelled = one if one.any() and not varying(one)[-2:] else other
    return first(labelled, [-2, -1])


def _give_up(trace: Tracer, call: Call, *tensors: Tensor) -> None:
    for tensor in tensors:
        trace.ties.keep(trace.labels(tensor), TWO_SIDES)
    if len(tensors) > 1 and min(tensor.dim() for tensor in tensors[:2]) > 1:
        trace.product(torch.zeros(call.out.numel(), dtype=torch.int64), tensors[0].shape[-1])


@rule("addmm", "baddbmm")
def added_product(trace: Tracer, call: Call) -> None:
    """A product of activations that is added to others; rare enough not to be followed."""
    _give_up(trace, call, call.args[1], call.args[2], call.args[0])


@rule("scaled_dot_product_attention")
def attention(trace: Tracer, call: Call) -> None:
    """Queries and keys share their width; the result has the values' channels."""
    query, key, value = (trace.labels(call[name]) for name in ("query", "key", "value"))
    if query.shape[:-2] != key.shape[:-2]:
        # Several queries to a key: the heads are counted, and stay.
        times = query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])
        trace.product(torch.zeros(1, dtype=torch.int64), times)
        return unknown(trace, call)
    summed = _contract(trace, query, key.transpose(-1, -2))
    width = torch.zeros(query.shape[:-2] + query.shape[-1:], dtype=torch.int64) if summed is None else summed
    free = first(trace.ties.even(value, [value.dim() - 2]), [value.dim() - 2])
    times = query.shape[-2] * key.shape[-2]
    trace.product(width.flatten(), times)
    trace.product(free.flatten(), times)
    return trace.put(call.out, free)
