"""Labels of results against the Jacobian, which knows on which channels every element of a result depends."""

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

import rlprune.tracing.weight_rules  # noqa: F401  (fills the table of rules)
from rlprune.tracing import data_rules as moves
from rlprune.tracing.labels import ALWAYS, varying
from rlprune.tracing.operations import RULES
from rlprune.tracing.tracer import INDICES, INPUT, Tracer

Run = Callable[[Tensor], Any]
CHANNELS = 8
SHAPE = (1, CHANNELS, 4, 2)
FREE, HALVES, NEIGHBOURS, ENDS, KEPT = "abcdefgh", "abcdabcd", "aabbccdd", "abcddcba", "--------"
aten = torch.ops.aten


class Recorder(Tracer):
    """Remembers which operations it has seen."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.seen_operations: set[Any] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen_operations.add(func.overloadpacket)
        return super().__torch_dispatch__(func, types, args, kwargs)


class Case(NamedTuple):
    """An operation, and which of the eight channels that it is given have to go together: a letter each."""

    name: str
    run: Run
    wanted: str = FREE
    shape: tuple[int, ...] = SHAPE


class Seen(NamedTuple):
    """What came of an operation: the channel of every input channel and of every element of the results."""

    trace: Recorder
    source: np.ndarray
    results: list[np.ndarray]
    why: dict[int, str]


def image(shape: tuple[int, ...] = SHAPE) -> Tensor:
    """Where no activation is flat."""
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1


def floats(results: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(results) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def follow(run: Run, x: Tensor, module: nn.Module | None = None) -> Seen:
    """Run it on a tensor with a channel of its own for every index of dimension 1."""
    trace = Recorder(module or nn.Module())
    labels = trace.ties.fresh(x.shape[1])
    trace.put(x, labels.view(-1, *[1] * (x.dim() - 2)))
    with torch.inference_mode(), trace:
        results = floats(run(x))
    channels, why = trace.ties.resolve()
    return Seen(trace, channels[labels.numpy()], [channels[trace.labels(one).numpy()] for one in results], why)


def letters(channels: Iterable[int]) -> str:
    """A letter for every channel, in the order of appearance."""
    known = {channel: chr(ord("a") + n) for n, channel in enumerate(dict.fromkeys(c for c in channels if c != ALWAYS))}
    return "".join(known.get(channel, "-") for channel in channels)


def dependence(result: Tensor, x: Tensor) -> np.ndarray:
    """(elements, channels) whether an element of the result depends on a channel."""
    if not (result.requires_grad and result.numel()):
        return np.zeros((result.numel(), x.shape[1]), dtype=bool)
    each = torch.eye(result.numel(), dtype=result.dtype).view(-1, *result.shape)
    (slope,) = torch.autograd.grad(result, x, each, retain_graph=True, is_grads_batched=True, materialize_grads=True)
    return slope.movedim(2, 1).flatten(2).any(2).numpy()


def check(labels: np.ndarray, depends: np.ndarray, source: np.ndarray, reduces: bool) -> None:
    """An element depends on what goes with it, and if it stays always, on what does so, too."""
    for label, channels in zip(labels.ravel(), depends, strict=True):
        assert set(source[channels]) <= {label} or (label == ALWAYS and reduces)


def op(name: str, *args: Any, wanted: str = FREE, shape: tuple[int, ...] = SHAPE) -> Case:
    packet = getattr(aten, name)
    return Case(f"{name}{args}" if len(repr(args)) < 30 else name, lambda x: packet(x, *args), wanted, shape)


def tokens(x: Tensor) -> Tensor:
    """Channels last."""
    return x.flatten(2).transpose(1, 2)


def pad_tokens(x: Tensor, mode: str) -> Tensor:
    return F.pad(tokens(x), (1, 1), mode)


def join(name: str, x: Tensor) -> Tensor:
    return getattr(aten, name)([x, x.tanh()], 1)


LINE, VOLUME = (1, CHANNELS, 6), (1, CHANNELS, 2, 2, 2)
SIMPLE = "hardswish hardsigmoid hardtanh relu6 silu mish selu celu relu sigmoid tanh exp neg square sqrt erf elu"
SMOOTH = "mean sum amax amin var std logsumexp nanmean"
POINTWISE = [
    *(op(name) for name in SIMPLE.split()),
    *(op(name, 0.05) for name in ("logit", "hardshrink", "softshrink", "leaky_relu", "clamp", "pow", "mul", "add")),
    op("threshold", 0.0, 0.0),
    op("_prelu_kernel", torch.tensor(0.2, dtype=torch.float64)),
    Case("where", lambda x: torch.where(x > 0.3, x, 0.0)),
    Case("masked_fill", lambda x: x.masked_fill(x > 0.5, 0.0)),
    Case("to itself", lambda x: x * x.tanh() + x),
    Case("to its statistics", lambda x: (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True)),
    Case("statistics first", lambda x: x.mean((2, 3), keepdim=True) * x),
    Case("flattened", lambda x: x.mean((2, 3)) * x.amax((2, 3))),
    Case("to its reverse", lambda x: x + x.flip(1), ENDS),
    Case("to one channel", lambda x: x * x[:, :1], "aaaaaaaa"),
    Case("to a constant", lambda x: x * torch.ones(8, 1, 1), KEPT),
    Case("to the same constant for all", lambda x: x * torch.ones(1, 1, 1) + torch.tensor(3.0) + torch.ones(1)),
    Case("to positions", lambda x: x * torch.rand(2) + torch.rand(4, 1) + torch.rand(1, 1, 4, 2)),
    Case("if equal", lambda x: x.tanh() if torch.equal(x, x.abs()) else x.sigmoid()),
    Case("three at once", lambda x: torch.addcmul(x, x.tanh(), x.sigmoid())),
    Case("a mask for all channels", lambda x: (x[:, :, :1, :1] * torch.rand(1, 1, 4, 2)) + x),
    Case("a product of all pairs", lambda x: x.mean((2, 3))[:, :, None] * x.amax((2, 3))[:, None], KEPT),
]
SAME = [
    *(op(name) for name in ["clone", "contiguous", "alias", "tril", "triu", "lift_fresh", "_to_copy", "rrelu"]),
    *(op(name, 2) for name in ("softmax", "log_softmax", "cumsum")),
    *(op(name, 2, False) for name in ("_softmax", "_log_softmax")),
    *(op(name, 0.5, False) for name in ("dropout", "alpha_dropout", "feature_dropout", "native_dropout")),
    op("to", torch.float32),
    op("type_as", torch.zeros(1)),
]
SILENT = [
    *(op(name) for name in ["detach", "zeros_like", "ones_like", "empty_like", "rand_like", "randn_like", "bernoulli"]),
    *(op(name) for name in ("zero", "normal", "uniform", "exponential")),
    op("fill", 3.0),
    op("full_like", 3.0),
]
"""They give every element to a channel, though none depends on it."""

POSITIONS = [
    *(op(name, [2, 3]) for name in f"{SMOOTH} var_mean std_mean".split()),
    *(op(name, [2], True) for name in f"{SMOOTH} var_mean std_mean".split()),
    *(op(name, -1) for name in ["max", "min", "prod", "median", "nanmedian"]),
    *(op(name, 2, True) for name in ["max", "min", "prod", "median", "nanmedian"]),
    *(op(name, 2, [2, 3]) for name in ("linalg_vector_norm",)),
    op("norm", 2, [2, 3], False),
    op("norm", 2, [3], True),
    op("topk", 1, 3),
    op("sort", 3),
    Case("in two steps", lambda x: x.mean(3).amax(2)),
    Case("in groups", lambda x: x.unflatten(1, (2, -1)).amax(1), HALVES),
    Case("of neighbours", lambda x: x.unflatten(1, (-1, 2)).amax(2), NEIGHBOURS),
    Case("of groups and positions", lambda x: x.unflatten(1, (2, -1)).mean((1, 3, 4)), HALVES),
]
OVER_CHANNELS = [
    *(op(name, [1]) for name in SMOOTH.split()),
    *(op(name, [1, 2, 3], True) for name in ["mean", "sum", "amax", "amin", "logsumexp"]),
    *(op(name) for name in ["mean", "sum", "max", "min", "prod", "var", "std"]),
    op("max", 1),
    op("linalg_vector_norm", 2, [1]),
    Case("and then more", lambda x: x.mean(1, keepdim=True).tanh().mean(2)),
]
LOCAL = [
    *(op(f"max_pool{n}d", [2] * n, shape=shape) for n, shape in ((1, LINE), (2, SHAPE), (3, VOLUME))),
    *(op(f"avg_pool{n}d", [2] * n, shape=shape) for n, shape in ((1, LINE), (2, SHAPE), (3, VOLUME))),
    *(op(f"adaptive_avg_pool{n}d", [1] * n, shape=shape) for n, shape in ((1, LINE), (2, SHAPE), (3, VOLUME))),
    *(op(f"adaptive_max_pool{n}d", [1] * n, shape=shape) for n, shape in ((1, LINE), (2, SHAPE), (3, VOLUME))),
    *(op(f"upsample_nearest{n}d", [3] * n, shape=shape) for n, shape in ((1, LINE), (2, SHAPE), (3, VOLUME))),
    op("max_pool2d_with_indices", [2, 2]),
    op("max_pool3d_with_indices", [2, 2, 2], shape=VOLUME),
    op("_adaptive_avg_pool2d", [2, 1]),
    op("_upsample_nearest_exact2d", [3, 3]),
    op("upsample_linear1d", [9], True, shape=LINE),
    op("upsample_trilinear3d", [3, 3, 3], False, shape=VOLUME),
    *(op(f"{name}2d", [5, 3], False) for name in ("upsample_bilinear", "upsample_bicubic")),
    *(op(f"_upsample_{name}2d_aa", [5, 3], False) for name in ("bilinear", "bicubic")),
    *(op(f"{name}_pad1d", [1, 2], shape=LINE) for name in ("reflection", "replication")),
    *(op(f"{name}_pad2d", [1, 0, 2, 1]) for name in ("reflection", "replication")),
    op("grid_sampler_2d", image((1, 3, 3, 2)), 0, 0, False),
    Case("unbatched", lambda x: F.max_pool2d(x[0], 2)),
    Case("along channels", lambda x: F.avg_pool2d(x.transpose(1, 3), (1, 2)), KEPT),
    Case("along tokens' channels", lambda x: F.avg_pool1d(tokens(x), 2), KEPT),
    Case("along tokens", lambda x: F.avg_pool1d(tokens(x).transpose(1, 2), 2)),
]
PADDED = [
    op("pad", [1, 2, 0, 1]),
    *(op("pad", [1, 1, 1, 1], mode) for mode in ("reflect", "replicate", "circular")),
    op("constant_pad_nd", [1, 0, 2, 0], 0.5),
    op("pad", [0, 0, 0, 0, 2, 1]),
    op("pad", [0, 0, 1, 0, 1, 3, 1, 1]),
    op("pad", [-1, 0, 0, -2]),
    Case("tokens", lambda x: F.pad(tokens(x), (1, 2, 1, 0))),
    *(Case(f"tokens {mode}", partial(pad_tokens, mode=mode), KEPT) for mode in ("reflect", "replicate", "circular")),
]
JOINED = [
    *(Case(name, partial(join, name)) for name in ("cat", "concat", "concatenate")),
    Case("cat of positions", lambda x: torch.cat([x, x.exp()], -1)),
    Case("cat of swapped positions", lambda x: torch.cat([x, x.flip(1)], 2), ENDS),
    Case("cat with a constant", lambda x: torch.cat([torch.rand(1, 3, 4, 2), x, torch.rand(1, 1, 4, 2)], 1)),
    Case("cat of positions with a constant", lambda x: torch.cat([x, torch.rand(1, 8, 4, 1)], 3), KEPT),
    Case("cat with nothing", lambda x: torch.cat([torch.zeros(0), x], 1)),
    Case("cat of one", lambda x: torch.cat([x])),
    Case("stack", lambda x: torch.stack([x, x.sin()], 2)),
    Case("stack in front", lambda x: torch.stack([x, x.flip(1)]), ENDS),
    Case("stack behind", lambda x: torch.stack([x[:, :4], x[:, 4:]], -1), HALVES),
]
SHAPED = [
    *(op(name, [1, 8, 8]) for name in ("view", "reshape", "_unsafe_view")),
    op("_reshape_alias", [8, 8], [8, 1]),
    op("view_as", torch.zeros(8, 4, 2)),
    op("reshape_as", torch.zeros(1, 64)),
    op("flatten", 2),
    op("flatten", 1),
    op("ravel"),
    op("unflatten", 2, [2, -1]),
    op("view", [1, 2, 4, 4, 2], wanted=HALVES),
    op("view", [1, 4, 2, 8], wanted="abababab"),
    op("view", [1, 2, 2, 2, 8], wanted="abababab"),
    op("view", [8, 1, 4, 2, 1, 1]),
    op("unflatten", 1, [2, -1], wanted=HALVES),
    Case("joined and split again", lambda x: x.flatten(1).view(1, 8, 4, 2)),
    Case("split as it was joined", lambda x: torch.cat([x, x], 1).view(1, 2, 8, 4, 2)),
    Case("split elsewhere", lambda x: x.flatten(1).view(1, 16, 2, 2)),
    op("expand", [3, 2, 8, 4, 2]),
    op("expand_as", torch.zeros(3, 8, 4, 2)),
    op("broadcast_to", [2, 8, 4, 2]),
]
MOVED = [
    op("permute", [2, 0, 3, 1]),
    op("transpose", 1, -1),
    Case("t", lambda x: x[0, :, 0].t()),
    Case("T", lambda x: aten.numpy_T(x[0, :, 0])),
    op("mT"),
    op("squeeze"),
    op("squeeze", 0),
    op("squeeze", 1),
    op("unsqueeze", 1),
    op("unsqueeze", -1),
    *(op(name, 1, 2) for name in ("movedim", "moveaxis", "swapaxes", "swapdims")),
    op("flip", [1, 2]),
    op("rot90", 1, [1, 2]),
    op("repeat", [2, 1, 3, 1, 1]),
    op("repeat", [1, 2, 1, 1]),
    op("tile", [2, 1, 1]),
    op("repeat_interleave", 2, 1),
    op("repeat_interleave", torch.tensor([1, 2]), 3),
    op("repeat_interleave", 2),
    Case("pixel_shuffle", lambda x: F.pixel_shuffle(x, 2)),
    op("pixel_unshuffle", 2),
    op("diagonal", 0, 2, 3),
    op("roll", [1], [2]),
    op("roll", [1, 3], [2, 1], wanted=KEPT),
    op("roll", [2], wanted=KEPT),
    Case("roll of groups", lambda x: x.unflatten(1, (2, -1)).roll(1, 1), HALVES),
    op("channel_shuffle", 2, wanted=HALVES),
]
SPLIT = [
    *(op(name, 2, 1, wanted=HALVES) for name in ("chunk", "unsafe_chunk", "tensor_split")),
    *(op(name, 4, 1, wanted=HALVES) for name in ("split", "unsafe_split")),
    *(op(name, [4, 4], 1, wanted=HALVES) for name in ("split_with_sizes", "unsafe_split_with_sizes")),
    op("chunk", 4, -3, wanted="abababab"),
    op("chunk", 3, 1, wanted=KEPT),
    op("chunk", 1, 1),
    op("chunk", 2, 2),
    op("split", 3, 2),
    op("split", [3, 5], 1, wanted=KEPT),
    op("tensor_split", [2, 5], 1, wanted=KEPT),
    op("glu", 1, wanted=HALVES),
    op("glu", 2),
    *(op(name, 1, 0, 4, wanted=HALVES) for name in ("slice", "narrow")),
    *(op(name, 1, 4, size, wanted=HALVES) for name, size in (("slice", 8), ("narrow", 4))),
    op("slice", 1, -4, 2**63 - 1, wanted=HALVES),
    op("slice", 1, -100, -6, wanted="abababab"),
    op("slice", 1, 6, 100, wanted="abababab"),
    op("narrow", -3, -2, 2, wanted="abababab"),
    op("slice", 1, 0, 8),
    op("slice", 1, 3, 3, wanted=KEPT),
    op("slice", 1, 1, 5, wanted=KEPT),
    op("slice", 1, 0, 5, wanted=KEPT),
    op("slice", 1, 0, 8, 2, wanted=KEPT),
    op("slice", 2, 1, 3),
    op("slice", -1, 0, 2, 2),
]
PICKED = [
    op("select", 1, 3, wanted=KEPT),
    op("select", 2, -1),
    op("unbind", 1, wanted=KEPT),
    op("unbind", 3),
    op("unbind"),
    op("index_select", 1, torch.tensor([3, 1]), wanted=KEPT),
    op("index_select", 3, torch.tensor([1, 1, 0])),
    op("gather", 1, torch.zeros(1, 2, 4, 2, dtype=torch.long), wanted=KEPT),
    op("gather", 3, torch.zeros(1, 8, 4, 5, dtype=torch.long)),
    op("index", [None, torch.tensor([7, 0])], wanted=KEPT),
    op("index", [None, None, torch.tensor([3, 0])]),
    op("index", [None, None, torch.tensor([3, 0, 1]), torch.tensor([1, 0, 1])]),
    Case("a mask of positions", lambda x: x[:, :, torch.eye(4, 2, dtype=torch.bool)]),
    Case("a mask of channels", lambda x: x[:, torch.arange(8) < 3], KEPT),
    Case("a mask of some elements", lambda x: x[x.detach() > 0.5]),
    Case("select of groups", lambda x: x.unflatten(1, (2, -1))[:, 1], HALVES),
    Case("embedding", lambda x: F.embedding(torch.tensor([[1, 0]]), tokens(x)[0])),
]
NOTHING = [
    op("new_zeros", [3]),
    op("new_ones", [3]),
    op("new_empty", [3]),
    op("new_full", [3], 1.0),
    *(op(name, 0) for name in ("size", "sym_size")),
    op("is_same_size", torch.zeros(3)),
]
FOLLOWED = POINTWISE + SAME + SILENT + POSITIONS + LOCAL + PADDED + JOINED + SHAPED + MOVED + SPLIT + PICKED + NOTHING


def cases(*chosen: Case) -> Any:
    return pytest.mark.parametrize("case", chosen, ids=lambda case: case.name)


@cases(*FOLLOWED)
def test_results_belong_to_the_channels_that_they_depend_on(case: Case) -> None:
    x = image(case.shape)
    seen = follow(case.run, x)
    assert letters(seen.source) == case.wanted
    for result, labels in zip(floats(case.run(x.requires_grad_())), seen.results, strict=True):
        check(labels, dependence(result, x), seen.source, reduces=False)


@cases(*OVER_CHANNELS)
def test_what_is_taken_over_all_channels_belongs_to_none(case: Case) -> None:
    x = image(case.shape)
    seen = follow(case.run, x)
    assert letters(seen.source) == FREE
    assert not any(labels.any() for labels in seen.results)


@cases(*SILENT, *SAME, op("softmax", 1), op("cumsum", 1))
def test_elements_stay_where_they_are(case: Case) -> None:
    seen = follow(case.run, image())
    assert letters(seen.results[0].ravel()) == "".join(letter * 8 for letter in FREE)


@cases(*(op(name, [2, 3]) for name in ("any", "all")), *(op(name, 2) for name in ("argmax", "argmin")))
def test_what_has_no_slope_is_reduced_alike(case: Case) -> None:
    """Set a channel to something else, and no other one changes."""
    x = image()
    trace = Tracer(nn.Module())
    labels = trace.ties.fresh(CHANNELS)
    trace.put(x, labels.view(-1, 1, 1))
    with torch.inference_mode(), trace:
        result = case.run(x)
    assert trace.labels(result).transpose(0, 1).flatten(1).equal(labels[:, None].expand(8, result.numel() // 8))


def test_every_operation_with_a_rule_is_tried() -> None:
    tried: set[Any] = set()
    for case in FOLLOWED + OVER_CHANNELS:
        tried |= follow(case.run, image(case.shape)).trace.seen_operations
    tried |= {aten.native_channel_shuffle, aten.any, aten.all, aten.argmax, aten.argmin, aten.argsort}
    mine = {packet for packet, rule in RULES.items() if rule.__module__ == moves.__name__}
    # Forward-mode derivatives, and random noise that is handed in.
    missing = {packet.__name__ for packet in mine - tried} - {"glu_jvp", "rrelu_with_noise"}
    assert {name for name in missing if not name.endswith("_")} == set()


SHUFFLES = ("channel_shuffle", "native_channel_shuffle")
COMMON = (
    "conv2d linear matmul bmm batch_norm layer_norm group_norm scaled_dot_product_attention add add_ cat stack view"
    " reshape flatten permute transpose mean max_pool2d avg_pool2d adaptive_avg_pool2d upsample_bilinear2d pad chunk"
    " split slice select index embedding softmax dropout dropout_ clone contiguous glu roll pixel_shuffle repeat expand"
)


def test_common_operations_exist_under_their_names() -> None:
    assert [name for name in COMMON.split() if getattr(aten, name, None) not in RULES] == []


@pytest.mark.parametrize("name", [name for name in SIMPLE.split() if hasattr(aten, f"{name}_")])
def test_in_place(name: str) -> None:
    seen = follow(lambda x: getattr(aten, f"{name}_")(x.clone()), image())
    assert letters(seen.source) == FREE
    assert letters(seen.results[0].ravel()) == "".join(letter * 8 for letter in FREE)


IN_PLACE: dict[str, Run] = {
    "transpose_": lambda x: x.clone().transpose_(1, 2),
    "squeeze_": lambda x: x.clone().squeeze_(0),
    "unsqueeze_": lambda x: x.clone().unsqueeze_(0),
    "t_": lambda x: x[0, :, 0].clone().t_(),
    "swapaxes_": lambda x: x.clone().swapaxes_(1, 3).contiguous(),
    "fill_": lambda x: x.clone().fill_(2.0),
    "copy_": lambda x: torch.zeros_like(x).copy_(x.tanh()),
    "masked_fill_": lambda x: x.clone().masked_fill_(x > 0.5, 0.0),
    "to a part": lambda x: _part(x.clone()),
}


def _part(x: Tensor) -> Tensor:
    x[:, :, 1].mul_(x[:, :, 0].clone())
    return x


@pytest.mark.parametrize("name", IN_PLACE)
def test_moves_in_place(name: str) -> None:
    x = image()
    seen = follow(IN_PLACE[name], x)
    check(seen.results[0], dependence(IN_PLACE[name](x.requires_grad_()), x), seen.source, reduces=False)
    assert letters(seen.source) in ((FREE, KEPT) if name in ("copy_", "masked_fill_") else (FREE,))


def test_a_shuffle_without_a_slope_is_as_the_one_with() -> None:
    one, other = (follow(op(name, 2).run, image()) for name in SHUFFLES)
    assert letters(one.source) == letters(other.source) == HALVES
    assert letters(one.results[0][0, :, 0, 0]) == letters(other.results[0][0, :, 0, 0]) == NEIGHBOURS


@pytest.mark.parametrize("name", ["unsqueeze_", "transpose_", "squeeze_"])
def test_moves_in_place_of_what_belongs_to_no_channel(name: str) -> None:
    """As positions of tokens that are made while the network runs."""
    args = (0, 1) if name == "transpose_" else (0,)
    seen = follow(lambda x: getattr(torch.ones(1, 2), name)(*args) + 1, image())
    assert not seen.results[0].any()


def test_writing_into_equal_parts_ties_them() -> None:
    def run(x: Tensor) -> Tensor:
        y = x.clone()
        y[:, :4].mul_(y[:, 4:].clone())
        return y

    x = image()
    seen = follow(run, x)
    assert letters(seen.source) == HALVES
    check(seen.results[0], dependence(run(x.requires_grad_()), x), seen.source, reduces=False)


def test_padded_channels_always_stay() -> None:
    seen = follow(lambda x: F.pad(x, (0, 0, 1, 0, 2, 1)), image())
    assert letters(seen.results[0][0, :, 0, 0]) == "--abcdefgh-"
    assert letters(seen.results[0][0, :, 3, 1]) == "--abcdefgh-"


def test_a_last_channel_that_is_padded_is_still_a_channel() -> None:
    """Whoever cuts a network down to one channel has to see which one it is."""
    seen = follow(lambda x: F.pad(x, (0, 0, 0, 0, 2, 1)), image((1, 1, 4, 2)))
    assert letters(seen.results[0][0, :, 0, 0]) == "--a-"


def test_constants_that_are_joined_always_stay() -> None:
    seen = follow(lambda x: torch.cat([x.new_ones(1, 2, 4, 2), x, x.flip(1)], 1), image())
    assert letters(seen.results[0][0, :, 0, 0]) == "--abcdefghhgfedcba"


REASONS = [
    ("roll", lambda x: x.roll(1, 1), moves.FIXED),
    ("slice", lambda x: x[:, :3], moves.FIXED),
    ("split", lambda x: x.split([3, 5], 1), moves.FIXED),
    ("index", lambda x: x[:, [0, 2]], moves.FIXED),
    ("pool", lambda x: F.avg_pool1d(tokens(x), 2), moves.SPATIAL),
    ("outer product", lambda x: x.mean((2, 3))[:, :, None] * x.mean((2, 3))[:, None], moves.SPATIAL),
    ("constant", lambda x: x + torch.ones(8, 1, 1), INPUT),
    ("sort", lambda x: x.sort(1).values, moves.RANKED),
    ("argsort", lambda x: x.argsort(1), moves.RANKED),
    ("cumprod", lambda x: x.cumprod(2), "cumprod"),
    ("topk", lambda x: x.topk(2, 1).values, moves.RANKED),
    ("fft", lambda x: torch.fft.rfft(x).abs(), "fft"),
    ("kthvalue", lambda x: x.kthvalue(2, 2).values, "kthvalue"),
    ("unfold", lambda x: F.unfold(x, 2), "im2col"),
    ("scatter", lambda x: torch.zeros_like(x).scatter(1, torch.zeros(1, 8, 4, 2, dtype=torch.long), x), "scatter"),
    ("masked_select", lambda x: x.masked_select(x > 0.5), "masked_select"),
    ("cummax", lambda x: x.cummax(2).values, "cummax"),
]


@pytest.mark.parametrize(("run", "why"), [case[1:] for case in REASONS], ids=[case[0] for case in REASONS])
def test_what_cannot_be_followed_stays_and_says_why(run: Run, why: str) -> None:
    seen = follow(lambda x: run(x.float()), image())
    assert letters(seen.source) == KEPT
    assert set(seen.why) == set(range(1, seen.trace.ties.number))
    (given,) = set(seen.why.values())
    assert given == why or re.fullmatch(rf"it goes through \w*{why}\w*, which cannot be followed", given)


USED: dict[str, Run] = {
    "argmax": lambda x: x.argmax(1) + 1,
    "argmin": lambda x: x.argmin(1, keepdim=True).float(),
    "of all": lambda x: x.argmax().item(),
    "max": lambda x: x.max(1).indices * 2,
    "min": lambda x: x.min(1, keepdim=True)[1] == 3,
    "median": lambda x: x.median(1).indices.unsqueeze(1),
    "nanmedian": lambda x: x.nanmedian(1).indices.clone(),
    "one-hot": lambda x: F.one_hot(x.argmax(1), 8),
    "gathered": lambda x: x.gather(1, x.max(1, keepdim=True).indices),
    "embedded": lambda x: F.embedding(x.argmax(1), torch.rand(8, 3)),
    "scattered": lambda x: torch.zeros_like(x).scatter(1, x.max(1, keepdim=True).indices, 1.0),
}


@pytest.mark.parametrize("name", USED)
def test_a_dimension_whose_numbers_are_looked_at_stays_whole(name: str) -> None:
    seen = follow(lambda x: USED[name](x.float()), image())
    assert letters(seen.source) == KEPT
    assert set(seen.why.values()) == {INDICES}


VALUES: dict[str, Run] = {
    "max": lambda x: x.max(1).values * 2,
    "min": lambda x: x.min(1)[0] * 2,
    "median": lambda x: x.median(1).values * 2,
    "nanmedian": lambda x: x.nanmedian(1).values * 2,
    "of positions": lambda x: x.flatten(2).argmax(2) + 1,
    "ranked positions": lambda x: x.flatten(2).topk(2, 2).values + x.flatten(2).sort(2).values[..., :2],
}


@pytest.mark.parametrize("name", VALUES)
def test_values_and_places_among_positions_leave_channels_free(name: str) -> None:
    seen = follow(lambda x: VALUES[name](x.float()), image())
    assert letters(seen.source) == FREE


def test_numbers_of_channels_that_are_returned_stay() -> None:
    network = nn.Conv2d(3, 8, 1)
    network.register_forward_hook(lambda module, inputs, output: output.argmax(1))
    trace = Tracer(network)
    trace.run(network, torch.rand(1, 3, 4, 4))
    outputs, _ = trace.sides["weight"]
    channels, why = trace.ties.resolve()
    assert not channels[outputs.numpy()].any()
    assert {why[label] for label in outputs.tolist()} == {INDICES}


@pytest.mark.parametrize("name", ["tril", "triu", "diagonal"])
def test_what_depends_on_a_place_among_the_channels_stays(name: str) -> None:
    """Without a channel the later ones move up, across the diagonal of tokens by channels."""
    seen = follow(lambda x: getattr(tokens(x)[0], name)(), image())
    assert letters(seen.source) == KEPT


Step = tuple[str, int, int]


def swapped(y: Tensor, d: int) -> Tensor:
    one, other = y.chunk(2, d)
    return torch.cat([other, one], d)


def gated(y: Tensor, d: int) -> Tensor:
    one, other = y.chunk(2, d)
    return one * other.sigmoid()


STEPS: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "amax": lambda y, d, _: y.amax(d, keepdim=True),
    "channel_shuffle": lambda y, d, _: F.channel_shuffle(y, 2),
    "contiguous": lambda y, d, _: y.contiguous(),
    "every second": lambda y, d, _: y[(slice(None),) * d + (slice(None, None, 2),)],
    "flip": lambda y, d, _: y.flip(d),
    "flipped sum": lambda y, d, _: y + y.flip(d),
    "gate": lambda y, d, _: gated(y, d),
    "halve": lambda y, d, _: y.narrow(d, 0, y.shape[d] // 2),
    "interleave": lambda y, d, _: y.repeat_interleave(2, d),
    "interpolate": lambda y, d, _: F.interpolate(y, scale_factor=2),
    "mean": lambda y, d, _: y.mean(d),
    "merge": lambda y, d, _: y.flatten(d, d + 1),
    "mirror": lambda y, d, _: torch.cat([y, y.flip(d).tanh()], d),
    "ones": lambda y, d, _: torch.cat([y.new_ones(*y.shape[:d], 2, *y.shape[d + 1 :]), y], d),
    "pad": lambda y, d, _: F.pad(y, [0, 0] * (y.dim() - d - 1) + [1, 2]),
    "pixel_shuffle": lambda y, d, _: F.pixel_shuffle(y, 2),
    "pixel_unshuffle": lambda y, d, _: F.pixel_unshuffle(y, 2),
    "pool": lambda y, d, _: F.max_pool2d(y, 2),
    "repeat": lambda y, d, _: y.repeat(*[2 if dim == d else 1 for dim in range(y.dim())]),
    "roll": lambda y, d, _: y.roll(1, d),
    "split": lambda y, d, _: y.unflatten(d, (2, -1)),
    "squeeze": lambda y, d, _: y.squeeze(d),
    "stack": lambda y, d, _: torch.stack([y, y.square()], d),
    "swap": lambda y, d, _: swapped(y, d),
    "tanh": lambda y, d, _: y.tanh(),
    "transpose": lambda y, d, e: y.transpose(d, e),
    "twice": lambda y, d, _: torch.cat([y, y], d),
    "unsqueeze": lambda y, d, _: y.unsqueeze(d),
    "zeros": lambda y, d, _: torch.cat([y, torch.zeros_like(y)], d),
}
"""What can be done to a tensor along a dimension without a number of channels in the code, if it is possible."""

WITH_PARAMETER: dict[str, Callable[[Tensor, int, Tensor], Tensor]] = {
    "place": lambda y, d, parameter: y + parameter,
    "scale": lambda y, d, parameter: y * parameter.view(-1, *[1] * (y.dim() - d - 1)),
    "shift": lambda y, d, parameter: parameter.view(-1, *[1] * (y.dim() - d - 1)) + y,
}
WRITTEN = {"split", "squeeze", "pixel_shuffle", "pixel_unshuffle"}
"""There is a number in the code after all, which may be one of channels."""


def possible(name: str, shape: torch.Size, d: int) -> bool:
    dims, images = len(shape), len(shape) == 4
    return {
        **dict.fromkeys(("gate", "halve", "swap"), shape[d] % 2 == 0),
        **dict.fromkeys(("stack", "unsqueeze"), dims < 6),
        "channel_shuffle": images and shape[1] % 2 == 0,
        "interpolate": images,
        "mean": dims > 1,
        "merge": d + 1 < dims,
        "pixel_shuffle": images and shape[1] % 4 == 0,
        "pixel_unshuffle": images and shape[2] % 2 == shape[3] % 2 == 0,
        "pool": images and min(shape[2:]) > 1,
        "split": dims < 6 and shape[d] % 2 == 0,
    }.get(name, True)


def plan(drawn: list[Step], x: Tensor, parameters: nn.ParameterList) -> list[Step]:
    """The steps that are possible and do not make the tensor too large for a Jacobian; with their parameters."""
    steps: list[Step] = []
    for name, d, e in drawn:
        d, e = d % x.dim(), e % x.dim()
        if x.numel() > 160 or not possible(name, x.shape, d):
            continue
        if name in WITH_PARAMETER:
            parameters.append(nn.Parameter(image(tuple(x.shape) if name == "place" else (x.shape[d],))))
        steps.append((name, d, e))
        x = stages(steps[-1:], x, parameters[-1:])[-1]
    return steps


def stages(steps: list[Step], x: Tensor, parameters: Iterable[Tensor]) -> list[Tensor]:
    """The tensor after every step."""
    results, spare = [x], iter(parameters)
    for name, d, e in steps:
        y = results[-1]
        results.append(WITH_PARAMETER[name](y, d, next(spare)) if name in WITH_PARAMETER else STEPS[name](y, d, e))
    return results


def box(left: np.ndarray) -> tuple[int, ...] | None:
    """Shape of what is left, if that is a rectangle."""
    others = [tuple(set(range(left.ndim)) - {dim}) for dim in range(left.ndim)]
    shape = tuple(int(left.any(other).sum()) for other in others)
    return shape if left.sum() == np.prod(shape) else None


STEP = st.tuples(st.sampled_from([*STEPS, *WITH_PARAMETER]), st.integers(0, 4), st.integers(0, 4))


@settings(max_examples=250, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=4), st.permutations(range(CHANNELS)), st.integers(1, CHANNELS - 1))
def test_compositions(drawn: list[Step], order: list[int], count: int) -> None:
    """A result without some channels is what the smaller input gives, wherever these have no part in what stays."""
    x, parameters = image(), nn.ParameterList()
    steps = plan(drawn, x, parameters)
    trace = Tracer(parameters)
    labels = trace.ties.fresh(CHANNELS)
    trace.put(x, labels.view(-1, 1, 1))
    with torch.inference_mode(), trace:
        traced = stages(steps, x, parameters)
    # Whoever reads the result takes one of its dimensions for the channels.
    if dims := varying(trace.labels(traced[-1])):
        trace.along(trace.labels(traced[-1]), dims[order[0] % len(dims)])
    channels = trace.ties.resolve()[0]
    source, found = channels[labels.numpy()], [channels[trace.labels(one).numpy()] for one in traced]

    dense = stages(steps, x.requires_grad_(), parameters)[-1]
    depends = dependence(dense, x)
    reduces = any(name in ("mean", "amax") for name, _, _ in steps)
    check(found[-1], depends, source, reduces)

    chosen = source[order][:count]
    alive = np.concatenate([[ALWAYS], chosen, np.setdiff1d(channels, source)])
    left = [np.isin(one, alive) for one in found]
    stays = np.isin(source, alive)
    smaller = [
        _cut(parameter, np.isin(channels[trace.elements[name].numpy()], alive)) if name in trace.elements else parameter
        for name, parameter in parameters.named_parameters()
    ]
    given = _run(steps, x[:, torch.from_numpy(stays)], smaller)
    # A network is run again after it has been cut; that is where numbers in its code are found out.
    if [one.shape for one in given] != [box(one) for one in left]:
        assert WRITTEN & {name for name, _, _ in steps}
        return
    # What is taken over parameters of channels that go is another number without them.
    if reduces and parameters:
        return
    clear = torch.from_numpy(depends[left[-1].ravel()])[:, torch.from_numpy(~stays)].any(1).logical_not()
    wanted = dense.flatten()[torch.from_numpy(left[-1].ravel())]
    torch.testing.assert_close(given[-1].flatten()[clear], wanted[clear], rtol=1e-12, atol=1e-12)


def _run(steps: list[Step], x: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    try:
        return stages(steps, x, parameters)
    except (RuntimeError, IndexError, ValueError):
        return []


def _cut(parameter: Tensor, left: np.ndarray) -> Tensor:
    shape = box(left)
    assert shape is not None
    return parameter[torch.from_numpy(left)].view(shape)


def test_a_parameter_comes_first_or_last() -> None:
    """The sum is labelled alike, and pooled afterwards."""
    found = []
    for first in (True, False):
        parameters = nn.ParameterList([nn.Parameter(torch.rand(1, 8, 4, 2))])

        def run(x: Tensor, parameters: nn.ParameterList = parameters, first: bool = first) -> Tensor:
            return F.max_pool2d(parameters[0] + x if first else x + parameters[0], 2)

        found.append(letters(follow(run, image().float(), parameters).source))
    assert found == [FREE, FREE]


def test_labels_of_maps_take_no_memory_for_positions() -> None:
    trace = Tracer(nn.Module())
    x = torch.zeros(2, 8, 64, 64)
    trace.put(x, trace.ties.fresh(8).view(-1, 1, 1))
    with torch.inference_mode(), trace:
        y = F.pad(torch.cat([F.interpolate(x.relu(), scale_factor=2), F.interpolate(x, scale_factor=2)], 1), (1, 1))
        y = F.max_pool2d(y * y.mean((2, 3), keepdim=True), 2)
    labels = trace.labels(y)
    assert varying(labels) == [1]
    assert labels.untyped_storage().nbytes() <= 16 * 8
