"""How channels pass through operations without weights: arithmetic, reductions, and data that only moves."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from rlprune.tracing.labels import ALWAYS, always, first, varies, varying
from rlprune.tracing.operations import Call, rule
from rlprune.tracing.tracer import INPUT, Tracer

FIXED = "its channels are picked by positions that are written into the code"
RANKED = "its channels are ranked"
SPATIAL = "its channels are treated as positions"
Operand = tuple[Tensor, list[int]]
"""Labels, and the dimensions along which they vary."""
WORDS = {"add": "sum", "sub": "difference", "mul": "product", "div": "quotient"}
ACTIVATIONS = "hardswish hardsigmoid hardtanh relu6 silu mish selu celu logit threshold softshrink hardshrink"


# Every operation that torch itself calls pointwise has this rule as well.
@rule("add", "_prelu_kernel", *ACTIVATIONS.split())
def pointwise(trace: Tracer, call: Call) -> None:
    """Elements that meet are the same channel, except where one is repeated."""
    out = call.out
    labels = [_own(trace, tensor) for tensor in Call.tensors([call.args, call.kwargs]) if tensor.dim()]
    labels = [_padded(one, out.dim()) for one in labels if one.dim() <= out.dim()]
    if not labels:
        return
    operands = [(one, varying(one)) for one in labels]
    # The largest speaks first: what is repeated has no say about the dimensions along which it is. Of several the one
    # that changes least, which is not a parameter for every position.
    operands.sort(key=lambda operand: (-operand[0].numel(), not operand[1], len(operand[1])))
    base, dims = operands[0]
    for other, mine in operands[1:]:
        # A number, or a map that all channels share, has no say about them.
        if not mine and dims and all(other.shape[dim] == 1 for dim in dims):
            continue
        if base.shape == other.shape or mine:
            base, dims = _meet(trace, call, (base, dims), (other, mine))
        elif dims:
            _tie(trace, base, other, call)
    for result in Call.tensors(call.result):
        trace.put(result, base)


def _own(trace: Tracer, tensor: Tensor) -> Tensor:
    """Labels of a tensor without the dimensions along which it is only repeated, of size 1 there."""
    repeated = [dim for dim in range(tensor.dim()) if tensor.stride(dim) == 0 and tensor.shape[dim] > 1]
    return first(trace.labels(tensor), repeated)


def _padded(labels: Tensor, dims: int) -> Tensor:
    return labels.view(*[1] * (dims - labels.dim()), *labels.shape) if labels.dim() < dims else labels


def _meet(trace: Tracer, call: Call, largest: Operand, smaller: Operand) -> Operand:
    """What comes out where two operands meet."""
    (base, dims), (other, mine) = largest, smaller
    silent = any(other.shape[dim] == 1 < base.shape[dim] for dim in dims)
    # What is repeated along the channels and changes elsewhere counts positions.
    if silent and not set(mine) <= set(dims):
        trace.ties.keep(other, SPATIAL)
        return base, dims
    # A map of one channel times a number for each channel has the channels of the numbers.
    if mine and not dims and not base.any() and any(base.shape[dim] == 1 for dim in mine):
        return torch.broadcast_tensors(base, other)[1], mine
    _tie(trace, base, other, call)
    return torch.broadcast_tensors(base, other)[0 if dims or not mine else 1], dims or mine


def _tie(trace: Tracer, one: Tensor, other: Tensor, call: Call) -> None:
    one, other = torch.broadcast_tensors(one, other)
    if trace.ties.tie(one, other, INPUT):
        trace.note(one, WORDS.get(call.name.rstrip("_"), call.name))


SAME = (
    "softmax _softmax log_softmax _log_softmax dropout alpha_dropout feature_dropout native_dropout to"
    " _to_copy type_as contiguous clone detach alias lift_fresh fill zero zeros_like ones_like empty_like full_like"
    " rand_like randn_like bernoulli uniform normal exponential cumsum glu_jvp rrelu rrelu_with_noise"
)


@rule(*SAME.split())
def same(trace: Tracer, call: Call) -> None:
    """Every element stays where it is."""
    labels = trace.labels(next(iter(Call.tensors([call.args, call.kwargs]))))
    for result in Call.tensors(call.result):
        trace.put(result, labels)


@rule("tril", "triu")
def triangle(trace: Tracer, call: Call) -> None:
    """Half of a matrix; channels that are a side of it have to stay."""
    labels = trace.labels(call["self"])
    if any(varies(labels, dim) for dim in range(labels.dim() - 2, labels.dim())):
        return trace.ties.keep(labels, FIXED)
    return trace.put(call.out, labels)


@rule("size", "sym_size", "is_same_size", "equal")
def nothing(trace: Tracer, call: Call) -> None:
    """Nothing of a channel is in the result."""


@rule("new_zeros", "new_ones", "new_empty", "new_full")
def like(trace: Tracer, call: Call) -> None:
    """What is as large as a feature map is for its channels, such as the state that a loop starts from."""
    if call.out.shape == call["self"].shape:
        same(trace, call)


REDUCTIONS = (
    "mean sum amax amin max min var std var_mean std_mean prod norm linalg_vector_norm logsumexp any all argmax argmin"
    " median nanmedian nanmean"
)
BOTH = ("max", "min", "median", "nanmedian")
"""Reductions that give values and, along a dimension, the places where these were found."""


@rule(*REDUCTIONS.split())
def reduction(trace: Tracer, call: Call) -> None:
    """What is summed up over channels belongs to none of them."""
    if call["other"] is not None:
        return pointwise(trace, call)
    labels = trace.labels(call["self"])
    given = call["dim"]
    dims = [given] if isinstance(given, int) else list(given or range(labels.dim()))
    dims = sorted({dim % max(labels.dim(), 1) for dim in dims})
    others = [dim for dim in varying(labels) if dim not in dims]
    if any(varies(labels, dim) for dim in dims):
        for result in _places(call):
            trace.number(result, labels)
        labels = trace.ties.even(labels, dims) if others else always(labels.shape)
    labels = first(labels, dims)
    for result in Call.tensors(call.result):
        kept = [size for dim, size in enumerate(labels.shape) if dim not in dims]
        trace.put(result, labels if result.dim() == labels.dim() else labels.reshape(kept))
    return None


def _places(call: Call) -> list[Tensor]:
    """Those results of a reduction that say where something was found."""
    if call.name.startswith("arg"):
        return [call.out]
    return [call.result[1]] if call.name in BOTH and not isinstance(call.result, Tensor) else []


@rule("topk", "sort", "argsort")
def ranking(trace: Tracer, call: Call) -> None:
    """Positions may be ranked, channels have to stay: which of them comes first is for the images to say."""
    labels = trace.labels(call["self"])
    dim = labels.dim() - 1 if call["dim"] is None else call["dim"] % max(labels.dim(), 1)
    if labels.dim() and varies(labels, dim):
        return trace.ties.keep(labels, RANKED)
    for result in Call.tensors(call.result):
        trace.put(result, first(labels, [dim]) if labels.dim() else labels)
    return None


LOCAL = (
    "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d"
    " adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d adaptive_max_pool1d"
    " adaptive_max_pool2d adaptive_max_pool3d upsample_nearest1d upsample_nearest2d upsample_nearest3d"
    " _upsample_nearest_exact2d upsample_bilinear2d upsample_linear1d upsample_trilinear3d upsample_bicubic2d"
    " _upsample_bilinear2d_aa _upsample_bicubic2d_aa reflection_pad1d reflection_pad2d replication_pad1d"
    " replication_pad2d grid_sampler_2d"
)


@rule(*LOCAL.split())
def local(trace: Tracer, call: Call) -> None:
    """Positions are mixed, channels are not."""
    source = Call.tensors(call.args)[0]
    labels = trace.labels(source)
    # Not in the name of an integer type, nor the 2 of another operation.
    number = int(re.findall(r"(\d)d", call.name)[-1])
    dims = list(range(labels.dim() - number, labels.dim()))
    if any(varies(labels, dim) for dim in dims):
        # A map that is a parameter has labels of its own at every position.
        if not set(varying(labels)) - set(dims):
            return trace.ties.keep(labels, SPATIAL)
        labels = trace.ties.even(labels, dims)
    for result in Call.tensors(call.result):
        trace.put(result, first(labels, dims))
    return None


@rule("pad", "constant_pad_nd")
def pad(trace: Tracer, call: Call) -> None:
    """Positions that are added belong to whatever is beside them, channels that are added always stay."""
    labels, amounts = trace.labels(call["self"]), call["pad"]
    for step in range(len(amounts) // 2):
        dim = labels.dim() - 1 - step
        before, after = amounts[2 * step : 2 * step + 2]
        # A last channel that is padded is still a channel; where images are padded, channels come before positions.
        if varies(labels, dim) or (labels.shape[dim] == dim == 1 and labels.dim() > 3):
            if call["mode"] not in (None, "constant"):
                return trace.ties.keep(labels, SPATIAL)
            padding = [0] * (2 * step) + [before, after]
            labels = torch.nn.functional.pad(labels, padding, value=ALWAYS)
        else:
            sizes = list(labels.shape)
            sizes[dim] = call.out.shape[dim]
            labels = first(labels, [dim]).expand(sizes)
    return trace.put(call.out, labels)


@rule("cat", "concat", "concatenate")
def concatenation(trace: Tracer, call: Call) -> None:
    """One after the other along one dimension; along the others they meet."""
    tensors = [tensor for tensor in call["tensors"] if tensor.dim() == call.out.dim()]
    _join(trace, call, [trace.labels(tensor) for tensor in tensors], call["dim"] % call.out.dim())


@rule("stack")
def stack(trace: Tracer, call: Call) -> None:
    """The same, along a new dimension."""
    dim = call["dim"] % call.out.dim()
    _join(trace, call, [trace.labels(tensor).unsqueeze(dim) for tensor in call["tensors"]], dim)


def _join(trace: Tracer, call: Call, parts: list[Tensor], dim: int) -> None:
    if any(varying(part) for part in parts) and not any(varies(part, dim) for part in parts):
        # Not along their channels: every part has the same ones.
        for part in parts[1:]:
            trace.ties.tie(first(parts[0], [dim]), first(part, [dim]), INPUT)
        return trace.put(call.out, first(parts[0], [dim]))
    still = [d for d in range(call.out.dim()) if d != dim and all(part.stride(d) == 0 for part in parts)]
    return trace.put(call.out, torch.cat([first(part, still) for part in parts], dim))


@rule("view", "reshape", "_unsafe_view", "_reshape_alias", "view_as", "reshape_as", "flatten", "unflatten", "ravel")
def view(trace: Tracer, call: Call) -> None:
    """Dimensions are joined or split; a split one must be cut evenly."""
    before = trace.labels(call["input"] if call["self"] is None else call["self"])
    shape = call.out.shape
    for old, new in _segments(tuple(before.shape), tuple(shape)):
        if len(new) > 1 and any(varies(before, dim) for dim in old):
            part = first(before, [dim for dim in range(before.dim()) if dim not in old])
            trace.ties.rectangle(part.reshape([shape[dim] for dim in new]))
    trace.put(call.out, before.reshape(shape))


def _segments(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Runs of dimensions before and after a view that hold the same elements."""
    runs: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) and j < len(new):
        left, right, ins, outs = old[i], new[j], [i], [j]
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                left, ins, i = left * old[i], [*ins, i], i + 1
            else:
                right, outs, j = right * new[j], [*outs, j], j + 1
        runs.append((ins, outs))
    return runs


@rule("expand", "expand_as", "broadcast_to")
def expand(trace: Tracer, call: Call) -> None:
    """Repeated without a copy."""
    trace.put(call.out, trace.labels(call["self"]))


MOVES = (
    "permute transpose t squeeze unsqueeze movedim moveaxis swapaxes swapdims flip rot90 repeat tile"
    " repeat_interleave pixel_shuffle pixel_unshuffle numpy_T mT"
)


@rule(*MOVES.split())
def move(trace: Tracer, call: Call) -> None:
    """The labels move as the elements do."""
    labels = call.func(trace.labels(call.args[0]), *call.args[1:], **call.kwargs)
    trace.put(call.out, labels)


@rule("diagonal")
def diagonal(trace: Tracer, call: Call) -> None:
    """Positions may be picked so, channels have to stay."""
    labels = trace.labels(call["self"])
    if any(varies(labels, call[dim] % labels.dim()) for dim in ("dim1", "dim2")):
        return trace.ties.keep(labels, FIXED)
    return trace.put(call.out, call.func(labels, *call.args[1:], **call.kwargs))


@rule("roll")
def roll(trace: Tracer, call: Call) -> None:
    """Channels that are moved by a number have to stay."""
    labels = trace.labels(call["self"])
    for dim in call["dims"] or range(labels.dim()):
        if varies(labels, dim % labels.dim()):
            labels = _fixed(trace, labels, dim % labels.dim())
    trace.put(call.out, labels if labels.dim() == 0 else call.func(labels, *call.args[1:], **call.kwargs))


@rule("channel_shuffle", "native_channel_shuffle")
def shuffle(trace: Tracer, call: Call) -> None:
    """As by view and transpose: the groups are cut alike."""
    labels = trace.labels(call["self"])
    table = _fold(trace, labels, 1, call["groups"])
    trace.put(call.out, table.transpose(1, 2).reshape(labels.shape))


@rule("chunk", "split", "split_with_sizes", "unsafe_split", "unsafe_chunk", "tensor_split", "unsafe_split_with_sizes")
def split(trace: Tracer, call: Call) -> None:
    """Equal parts are cut alike."""
    parts, dim = call.result, call["dim"]
    labels = trace.labels(call["self"])
    sizes = [part.shape[dim] for part in parts]
    if varies(labels, dim % labels.dim()) and len(parts) > 1:
        if len(set(sizes)) == 1:
            _fold(trace, labels, dim % labels.dim(), len(parts))
        else:
            _fixed(trace, labels, dim % labels.dim())
    for part, piece in zip(parts, labels.split(sizes, dim), strict=True):
        trace.put(part, piece)


@rule("glu")
def gated(trace: Tracer, call: Call) -> None:
    """One half gates the other."""
    labels = trace.labels(call["self"])
    dim = call["dim"] % labels.dim()
    trace.put(call.out, _fold(trace, labels, dim, 2).select(dim, 0))


@rule("slice", "narrow")
def cut(trace: Tracer, call: Call) -> None:
    """A part that lies as one of several equal parts is cut as they are, any other has to stay."""
    labels, dim = trace.labels(call["self"]), call["dim"] % call.out.dim()
    size, length, start = labels.shape[dim], call.out.shape[dim], call["start"] or 0
    if size != length and varies(labels, dim):
        start = start % size if start < size else start
        if length and call["step"] in (None, 1) and start % length == 0 and size % length == 0:
            _fold(trace, labels, dim, size // length)
        else:
            _fixed(trace, labels, dim)
    trace.put(call.out, call.func(labels, *call.args[1:], **call.kwargs))


@rule("select", "unbind", "index_select", "gather", "index", "embedding")
def pick(trace: Tracer, call: Call) -> None:
    """Positions that are picked one by one have to stay."""
    source = call["weight"] if call["self"] is None else call["self"]
    labels = trace.labels(source)
    for dim in _picked(call, labels):
        if varies(labels, dim):
            labels = _fixed(trace, labels, dim)
    arguments = [labels if argument is source else argument for argument in call.args]
    pieces = call.func(*arguments, **call.kwargs)
    for part, piece in zip(Call.tensors(call.result), Call.tensors(pieces), strict=True):
        trace.put(part, piece)


def _picked(call: Call, labels: Tensor) -> Sequence[int]:
    if call.name == "embedding":
        return [0]
    if call.name == "index":
        return [dim for dim, index in enumerate(call["indices"]) if index is not None and dim < labels.dim()]
    return [(call["dim"] or 0) % labels.dim()]


def _fold(trace: Tracer, labels: Tensor, dim: int, parts: int) -> Tensor:
    """Labels with a dimension split into equal parts, which are cut alike."""
    return trace.ties.even(labels.unflatten(dim, (parts, -1)), [dim])


def _fixed(trace: Tracer, labels: Tensor, dim: int) -> Tensor:
    """Nothing may be cut along a dimension."""
    if set(varying(labels)) - {dim}:
        return trace.ties.even(labels, [dim])
    trace.ties.keep(labels, FIXED)
    return labels
