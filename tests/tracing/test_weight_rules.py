"""How layers couple channels, derived by hand, and their multiply-accumulates against torch's own count."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from hard_networks import Net, between, weight
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations
from torch.utils.flop_counter import FlopCounterMode

import rlprune.tracing.data_rules  # noqa: F401  (fills the table of rules)
from rlprune.cost.exact import build_cost
from rlprune.tracing import weight_rules as rules
from rlprune.tracing.build import build_graph
from rlprune.tracing.labels import ALWAYS
from rlprune.tracing.operations import RULES
from rlprune.tracing.tracer import COMPUTED, INPUT, Tracer

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
SPACE = (4, 6, 5)


@pytest.fixture(autouse=True)
def _no_fused_attention() -> Iterator[None]:
    """Which is a single operation that nobody can look into."""
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


class Followed:
    """A module that was run under a tracer on tensors with channels of their own, by default along dimension 1."""

    def __init__(self, module: nn.Module, *inputs: Tensor, along: int = 1, by_groups: frozenset[str] | None = None):
        self.trace = Tracer(module.eval(), by_groups)
        self.sources = [self.trace.ties.fresh(x.shape[along]) for x in inputs]
        for x, labels in zip(inputs, self.sources, strict=True):
            self.trace.put(x, labels.view(-1, *[1] * (x.dim() - along % x.dim() - 1)))
        with torch.inference_mode(), self.trace:
            out = module(*inputs)
        self.out = self.trace.labels(out)
        self.channels, self.why = self.trace.ties.resolve()

    def letters(self, *labels: Tensor) -> list[str]:
        """Channels as letters, the same for all of them; a dash for what is never cut."""
        found = [self.channels[one.numpy()].ravel().tolist() for one in labels]
        known = [channel for channel in dict.fromkeys(chain(*found)) if channel != ALWAYS]
        names = {channel: chr(ord("a") + number) for number, channel in enumerate(known)} | {ALWAYS: "-"}
        return ["".join(names[channel] for channel in one) for one in found]

    def along(self, dim: int = 1) -> Tensor:
        """Labels of the result along a dimension; they are the same along the others."""
        moved = self.out.movedim(dim, 0).reshape(self.out.shape[dim], -1)
        assert (moved == moved[:, :1]).all()
        return moved[:, 0]


def sides(followed: Followed, name: str = "weight", dim: int = 1) -> list[str]:
    """Of the first input, the inputs of a weight, its outputs, and the result."""
    outputs, inputs = followed.trace.sides[name]
    return followed.letters(followed.sources[0], inputs, outputs, followed.along(dim))


def reasons(followed: Followed) -> set[str]:
    return set(followed.why.values())


@pytest.mark.parametrize("dims", CONV)
@pytest.mark.parametrize("more", [{}, {"bias": False}, {"stride": 2, "padding": 1}, {"padding": "same"}])
@pytest.mark.parametrize("images", [None, 1, 3])
def test_convolution(dims: int, more: dict[str, Any], images: int | None) -> None:
    batch = () if images is None else (images,)
    followed = Followed(CONV[dims](3, 4, 3, **more), torch.rand(*batch, 3, *SPACE[:dims]), along=-dims - 1)
    assert sides(followed, dim=-dims - 1) == ["abc", "abc", "defg", "defg"]
    if more.get("bias", True):
        assert followed.letters(followed.trace.elements["bias"], followed.along(-dims - 1)) == ["abcd", "abcd"]


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular", "zeros"])
def test_convolution_with_padding(mode: Any) -> None:
    followed = Followed(nn.Conv2d(3, 4, 3, padding=1, padding_mode=mode), torch.rand(1, 3, 5, 4))
    assert sides(followed) == ["abc", "abc", "defg", "defg"]


@pytest.mark.parametrize("dims", TRANSPOSED)
def test_transposed_convolution_reads_its_first_dimension(dims: int) -> None:
    followed = Followed(TRANSPOSED[dims](3, 4, 2, stride=2), torch.rand(2, 3, *SPACE[:dims]))
    assert sides(followed) == ["abc", "abc", "defg", "defg"]
    assert followed.trace.transposed == {"weight"}
    assert followed.letters(followed.trace.elements["bias"], followed.along()) == ["abcd", "abcd"]


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 4, 3), (2, 4, 5, 3)])
def test_linear(shape: tuple[int, ...]) -> None:
    followed = Followed(nn.Linear(3, 4), torch.rand(shape), along=-1)
    assert sides(followed, dim=-1) == ["abc", "abc", "defg", "defg"]
    assert followed.letters(followed.trace.elements["bias"], followed.along(-1)) == ["abcd", "abcd"]


@pytest.mark.parametrize(
    ("inputs", "outputs", "groups", "expected"),
    [
        (8, 16, 4, ["aabbccdd", "aaaabbbbccccdddd"]),
        (8, 4, 4, ["aabbccdd", "abcd"]),
        (4, 8, 2, ["aabb", "aaaabbbb"]),
        (3, 6, 3, ["abc", "aabbcc"]),
        (8, 12, 2, ["abcdabcd", "efghijefghij"]),
        (6, 2, 2, ["abcabc", "dd"]),
    ],
)
def test_grouped_convolution(inputs: int, outputs: int, groups: int, expected: list[str]) -> None:
    """Whole groups where they are as many as or more than the inputs of one, the same ones of each elsewhere."""
    followed = Followed(nn.Conv2d(inputs, outputs, 1, groups=groups), torch.rand(1, inputs, 2, 2))
    assert sides(followed) == [expected[0], *expected[:2], expected[1]]
    assert followed.trace.by_groups == ({"weight"} if expected[0][0] in expected[1] else set())


@pytest.mark.parametrize(
    ("by_groups", "expected"), [(frozenset({"weight"}), ["aabb", "aabb"]), (frozenset(), ["abcd", "efgh"])]
)
def test_what_goes_of_a_network_that_was_cut_already_is_known(by_groups: frozenset[str], expected: list[str]) -> None:
    """With fewer groups of more channels left, it would be decided otherwise."""
    followed = Followed(nn.Conv2d(4, 4, 1, groups=2), torch.rand(1, 4, 2, 2), by_groups=by_groups)
    assert sides(followed)[0::2] == expected
    assert followed.trace.by_groups == by_groups


@pytest.mark.parametrize("groups", [2, 4])
def test_grouped_transposed_convolution_stays(groups: int) -> None:
    followed = Followed(nn.ConvTranspose2d(4, 8, 2, groups=groups), torch.rand(1, 4, 2, 2))
    assert followed.letters(followed.sources[0], followed.along()) == ["----", "--------"]
    assert reasons(followed) == {rules.GROUPED}
    assert list(followed.trace.refused) == [""]


def computed(wrap: Callable[..., nn.Module], layer: nn.Module) -> nn.Module:
    return nn.Sequential(wrap(layer))


@pytest.mark.parametrize(
    ("layer", "shape", "along"),
    [
        (lambda: nn.Conv2d(4, 6, 3), (1, 4, 5, 5), 1),
        (lambda: nn.ConvTranspose2d(4, 6, 3), (1, 4, 5, 5), 1),
        (lambda: nn.Linear(4, 6), (2, 4), -1),
    ],
)
@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_computed_weights_stay(layer: Any, shape: tuple[int, ...], along: int, wrap: Any) -> None:
    followed = Followed(nn.Sequential(wrap(layer())), torch.rand(shape), along=along)
    assert followed.letters(followed.sources[0], followed.along(along)) == ["----", "------"]
    assert COMPUTED in reasons(followed)
    assert list(followed.trace.refused) == ["0"]


def test_the_input_stays() -> None:
    followed = Followed(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(5, 2)), torch.rand(1, 3, 2, 5), along=0)
    assert followed.letters(followed.trace.sides["0.weight"][1]) == ["aaa"]
    trace = Tracer(module := nn.Conv2d(3, 4, 1))
    with torch.inference_mode(), trace:
        module(torch.rand(1, 3, 2, 2))
    channels, why = trace.ties.resolve()
    assert not channels[trace.sides["weight"][1]].any()
    assert set(why.values()) == {INPUT}


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.BatchNorm1d(4), (2, 4)),
        (nn.BatchNorm1d(4), (2, 4, 3)),
        (nn.BatchNorm2d(4), (2, 4, 3, 2)),
        (nn.BatchNorm3d(4), (2, 4, 3, 2, 2)),
        (nn.InstanceNorm1d(4, affine=True, track_running_stats=True), (2, 4, 3)),
        (nn.InstanceNorm2d(4, affine=True), (2, 4, 3, 2)),
        (nn.InstanceNorm3d(4), (2, 4, 3, 2, 2)),
        (nn.BatchNorm2d(4, affine=False), (2, 4, 3, 2)),
        (nn.BatchNorm2d(4, track_running_stats=False), (2, 4, 3, 2)),
    ],
)
def test_norms_of_single_channels(norm: nn.Module, shape: tuple[int, ...]) -> None:
    followed = Followed(norm, torch.rand(shape))
    named = [followed.trace.elements[name] for name, tensor in norm.state_dict().items() if tensor.dim()]
    assert followed.letters(followed.sources[0], followed.along(), *named) == ["abcd"] * (2 + len(named))


@pytest.mark.parametrize(
    ("groups", "affine", "expected", "whole"),
    [
        (4, True, "aabbccdd", True),
        (8, True, "abcdefgh", True),
        (2, True, "abcdabcd", False),
        (1, True, "abcdefgh", False),
        (2, False, "abcdabcd", False),
        (1, False, "abcdefgh", False),
    ],
)
def test_group_norm(groups: int, affine: bool, expected: str, whole: bool) -> None:
    followed = Followed(nn.GroupNorm(groups, 8, affine=affine), torch.rand(1, 8, 3, 2))
    named = [followed.trace.elements[name] for name in ("weight", "bias") if affine]
    assert followed.letters(followed.sources[0], followed.along(), *named) == [expected] * (2 + len(named))
    assert followed.trace.by_groups == ({"weight"} if whole else set())


def test_group_norm_that_was_cut_already() -> None:
    for by_groups, expected in ((frozenset({"weight"}), "aabb"), (frozenset[str](), "abcd")):
        followed = Followed(nn.GroupNorm(2, 4), torch.rand(1, 4, 2, 2), by_groups=by_groups)
        assert followed.letters(followed.sources[0]) == [expected]


@pytest.mark.parametrize("norm", [nn.LayerNorm(4), nn.LayerNorm(4, bias=False), nn.LayerNorm((5, 4))])
def test_layer_norm_of_channels(norm: nn.LayerNorm) -> None:
    followed = Followed(norm, torch.rand(2, 5, 4), along=-1)
    assert followed.letters(followed.sources[0], followed.along(-1)) == ["abcd", "abcd"]
    gain = followed.trace.elements["weight"]
    assert followed.letters(followed.sources[0].expand_as(gain), gain) == ["abcd" * (gain.numel() // 4)] * 2
    assert reasons(followed) == set()


def test_layer_norm_of_positions() -> None:
    """Its weight is of no channel; which of them go together is left open, but the result has the same ones."""
    followed = Followed(nn.LayerNorm(5), torch.rand(2, 4, 5))
    came, went = followed.letters(followed.sources[0], followed.along(1))
    assert came == went
    assert came in ("abcd", "aaaa")


def test_layer_norm_of_whole_images() -> None:
    norm = nn.LayerNorm((4, 3, 2))
    followed = Followed(norm, torch.rand(2, 4, 3, 2))
    gain, shift = followed.trace.elements["weight"], followed.trace.elements["bias"]
    assert followed.letters(followed.sources[0], followed.along()) == ["abcd", "abcd"]
    assert followed.letters(gain, shift) == ["a" * 6 + "b" * 6 + "c" * 6 + "d" * 6] * 2


def test_root_mean_square_norm() -> None:
    followed = Followed(nn.RMSNorm(4), torch.rand(2, 5, 4), along=-1)
    assert followed.letters(followed.sources[0], followed.along(-1), followed.trace.elements["weight"]) == ["abcd"] * 3


def test_norms_leave_out_what_goes_with_its_group() -> None:
    """Without whole norm groups, the others are normalised as before."""
    norm, x = nn.GroupNorm(4, 8), torch.rand(1, 8, 3, 2)
    nn.init.uniform_(norm.weight)
    followed = Followed(norm, x)
    left = torch.from_numpy(followed.channels[followed.sources[0]] != followed.channels[followed.sources[0][2]])
    smaller = F.group_norm(x[:, left], 3, norm.weight[left], norm.bias[left])
    torch.testing.assert_close(smaller, norm(x)[:, left])


class Multiply(nn.Module):
    """A product of its inputs."""

    def __init__(self, run: Callable[..., Tensor], **parameters: nn.Parameter) -> None:
        super().__init__()
        self.run = run
        for name, parameter in parameters.items():
            setattr(self, name, parameter)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.run(self, *inputs)


def works(followed: Followed) -> list[tuple[str, int]]:
    return [(followed.letters(labels)[0], times) for labels, times, _ in followed.trace.products]


def test_products_over_channels_tie_both_sides() -> None:
    """(tokens, channels) by (channels, tokens): nothing of the channels is left."""
    left, right = torch.rand(2, 5, 4), torch.rand(2, 3, 4)
    followed = Followed(Multiply(lambda _, x, y: x @ y.transpose(1, 2)), left, right, along=-1)
    assert followed.letters(*followed.sources) == ["abcd", "abcd"]
    assert not followed.out.any()
    # Two products of 5 x 3 x 4.
    assert works(followed) == [("abcdabcd", 15)]


@pytest.mark.parametrize("name", ["bmm", "matmul"])
def test_products_that_leave_the_channels_alone(name: str) -> None:
    """Of (tokens, tokens) by (tokens, channels), and of (channels, tokens) by (tokens, tokens)."""
    mixing, values = torch.rand(2, 5, 3), torch.rand(2, 3, 4)
    followed = Followed(Multiply(lambda _, y: getattr(torch, name)(mixing, y)), values, along=-1)
    assert followed.letters(followed.sources[0], followed.along(-1)) == ["abcd", "abcd"]
    assert works(followed) == [("abcdabcd", 15)]
    followed = Followed(Multiply(lambda _, y: getattr(torch, name)(y, mixing)), torch.rand(2, 4, 5))
    assert followed.letters(followed.sources[0], followed.along(1)) == ["abcd", "abcd"]
    assert works(followed) == [("abcdabcd", 15)]


def test_products_with_what_is_the_same_for_all_images() -> None:
    mixing = torch.rand(5, 3)
    followed = Followed(Multiply(lambda _, y: mixing @ y), torch.rand(2, 3, 4), along=-1)
    assert followed.letters(followed.sources[0], followed.along(-1)) == ["abcd", "abcd"]
    assert works(followed) == [("abcdabcd", 15)]


def test_products_of_all_pairs_of_channels_stay() -> None:
    gram = Followed(Multiply(lambda _, x: x @ x.transpose(1, 2)), torch.rand(2, 4, 5))
    assert gram.letters(gram.sources[0]) == ["----"]
    assert reasons(gram) == {rules.TWO_SIDES}
    assert sum(labels.numel() * times for labels, times, _ in gram.trace.products) == 2 * 4 * 4 * 5


def test_channels_that_are_summed_over_and_free_on_the_other_side_stay() -> None:
    """Of (tokens, channels) by (channels, channels), made of one another."""
    followed = Followed(
        Multiply(lambda _, x: x @ (x.transpose(1, 2)[:, :, :1] * x[:, :1])), torch.rand(2, 5, 4), along=-1
    )
    assert followed.letters(followed.sources[0]) == ["----"]


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 5, 3)])
def test_a_raw_parameter_on_the_right_is_a_layer(shape: tuple[int, ...]) -> None:
    followed = Followed(Multiply(lambda net, x: x @ net.raw, raw=weight(3, 4)), torch.rand(shape), along=-1)
    if len(shape) > 1:
        assert sides(followed, "raw", dim=-1) == ["abc", "abc", "defg", "defg"]
        assert followed.trace.transposed == {"raw"}
        assert followed.trace.positions == {"raw": torch.Size(shape[:-1]).numel()}
    else:
        assert followed.letters(followed.sources[0]) == ["---"]


@pytest.mark.parametrize(
    "run", [lambda net, x: net.raw @ x, lambda net, x: torch.bmm(x.transpose(1, 2), net.raw.t().expand(2, 3, 4))]
)
def test_other_products_with_raw_parameters_stay(run: Any) -> None:
    followed = Followed(Multiply(run, raw=weight(4, 3)), torch.rand(2, 3, 5))
    assert followed.letters(followed.sources[0], followed.trace.elements["raw"]) == ["---", "-" * 12]
    assert followed.trace.positions == {}
    assert sum(labels.numel() * times for labels, times, _ in followed.trace.products) == 2 * 4 * 3 * 5


def test_products_of_every_channel_by_itself_cost_what_is_left() -> None:
    """Positions by positions, for each image and channel."""
    followed = Followed(Multiply(lambda _, x: x @ x.transpose(2, 3)), torch.rand(2, 4, 5, 3))
    assert followed.letters(followed.sources[0], followed.along()) == ["abcd", "abcd"]
    for channel in followed.channels[followed.sources[0]]:
        mine = sum((followed.channels[labels] == channel).sum() * times for labels, times, _ in followed.trace.products)
        assert mine == 2 * 5 * 3 * 5


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": 0.5}, {"attn_mask": torch.zeros(5, 5)}])
def test_attention(options: dict[str, Any]) -> None:
    q, k, v = torch.rand(2, 3, 5, 4), torch.rand(2, 3, 5, 4), torch.rand(2, 3, 5, 6)
    run = Multiply(lambda _, *inputs: F.scaled_dot_product_attention(*inputs, **options))
    followed = Followed(run, q, k, v, along=-1)
    assert followed.letters(*followed.sources, followed.along(-1)) == ["abcd", "abcd", "efghij", "efghij"]
    # Six heads of 5 x 5 x 4 and of 5 x 5 x 6.
    assert works(followed) == [("abcd" * 6, 25), ("abcdef" * 6, 25)]


def test_cross_attention() -> None:
    q, k, v = torch.rand(2, 5, 4), torch.rand(2, 7, 4), torch.rand(2, 7, 6)
    followed = Followed(Multiply(lambda _, *inputs: F.scaled_dot_product_attention(*inputs)), q, k, v, along=-1)
    assert followed.letters(*followed.sources, followed.along(-1)) == ["abcd", "abcd", "efghij", "efghij"]
    assert works(followed) == [("abcdabcd", 35), ("abcdefabcdef", 35)]


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_with_fewer_heads_of_keys_and_values(heads: int) -> None:
    """Multi-query (2019, arXiv 1911.02150) and grouped-query attention (2023, arXiv 2305.13245)."""
    q, k, v = torch.rand(2, 4, 5, 3), torch.rand(2, heads, 5, 3), torch.rand(2, heads, 5, 6)
    run = Multiply(lambda _, q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True))
    followed = Followed(run, q, k, v, along=-1)
    found = followed.letters(*followed.sources, followed.along(-1))
    # As by heads of their own, or left alone.
    assert found in (["abc", "abc", "defghi", "defghi"], ["---", "---", "------", "------"])
    assert sum(labels.numel() * times for labels, times, _ in followed.trace.products) == 8 * 25 * (3 + 6)


def test_one_weight_read_from_both_sides_by_matrices() -> None:
    """A weight whose first dimension is made by one use and read by the next, as in tied autoencoders."""

    def run(net: Any, x: Tensor) -> Tensor:
        return F.linear(x, net.raw).tanh() @ net.raw

    followed = Followed(Multiply(run, raw=weight(4, 3)), torch.rand(2, 3), along=-1)
    # Exactly, its second dimension follows what comes in and what goes out; more may stay, but nothing may come loose.
    came, went = followed.letters(followed.sources[0], followed.along(-1))
    assert (came, went) in (("abc", "abc"), ("---", "---"))


def test_one_weight_read_from_both_sides_by_convolutions() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        return F.conv_transpose2d(F.conv2d(x, net.raw).relu(), net.raw)

    followed = Followed(Multiply(run, raw=weight(4, 3, 2, 2)), torch.rand(1, 3, 5, 5))
    came, went = followed.letters(followed.sources[0], followed.along(1))
    assert (came, went) in (("abc", "abc"), ("---", "---"))


class Attention(nn.Module):
    def __init__(self, attention: nn.MultiheadAttention, need_weights: bool = False) -> None:
        super().__init__()
        self.attention, self.need_weights = attention, need_weights

    def forward(self, q: Tensor, k: Tensor | None = None, v: Tensor | None = None) -> Tensor:
        result = self.attention(q, q if k is None else k, q if v is None else v, need_weights=self.need_weights)
        return result[0]


def counted(module: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Multiply-accumulates by torch's own count."""
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        module.eval()(*inputs)
    return counter.get_total_flops() // 2


IMAGE = (torch.rand(2, 4, 6, 5),)
TOKENS = (torch.rand(2, 7, 4),)
WORK: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...]]] = {
    **{f"conv{n}d": (partial(CONV[n], 4, 6, 3), (torch.rand(2, 4, *SPACE[:n]),)) for n in CONV},
    **{f"transposed{n}d": (partial(TRANSPOSED[n], 4, 6, 3), (torch.rand(2, 4, *SPACE[:n]),)) for n in TRANSPOSED},
    "unbatched": (lambda: nn.Conv2d(4, 6, 3), (IMAGE[0][0],)),
    "stride and dilation": (lambda: nn.Conv2d(4, 6, 2, stride=2, dilation=2, padding=3), IMAGE),
    "same padding": (lambda: nn.Conv2d(4, 6, 3, padding="same"), IMAGE),
    "circular padding": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), IMAGE),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), IMAGE),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), IMAGE),
    "transposed with stride": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1), IMAGE),
    "grouped transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), IMAGE),
    "linear": (lambda: nn.Linear(4, 6), TOKENS),
    "linear of a vector": (lambda: nn.Linear(4, 6), (torch.rand(4),)),
    "linear of images": (lambda: nn.Linear(5, 6), IMAGE),
    "called twice": (lambda: nn.Sequential(layer := nn.Conv2d(4, 4, 3), nn.ReLU(), layer), IMAGE),
    "computed convolution": (lambda: nn.Sequential(parametrizations.weight_norm(nn.Conv2d(4, 6, 3, groups=2))), IMAGE),
    "computed transposed": (lambda: nn.Sequential(parametrizations.weight_norm(nn.ConvTranspose2d(4, 6, 3))), IMAGE),
    "computed linear": (lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 6))), TOKENS),
    "raw on the right": (lambda: Multiply(lambda net, x: x @ net.raw, raw=weight(4, 6)), TOKENS),
    "raw on the left": (lambda: Multiply(lambda net, x: net.raw @ x, raw=weight(3, 7)), TOKENS),
    "raw in a batch": (lambda: Multiply(lambda net, x: x @ net.raw, raw=weight(2, 4, 3)), TOKENS),
    "raw in einsum": (
        lambda: Multiply(lambda net, x: torch.einsum("btc,cd->btd", x, net.raw), raw=weight(4, 6)),
        TOKENS,
    ),
    "addmm": (
        lambda: Multiply(lambda net, x: torch.addmm(net.shift, x[0], net.raw), raw=weight(4, 6), shift=weight(6)),
        TOKENS,
    ),
    "baddbmm": (lambda: Multiply(lambda _, x: torch.baddbmm(torch.zeros(1), x, x.transpose(1, 2))), TOKENS),
    "products": (lambda: Multiply(lambda _, x: (x @ x.transpose(1, 2)).softmax(-1) @ x), TOKENS),
    "products with images": (lambda: Multiply(lambda _, x: x @ x.transpose(2, 3)), IMAGE),
    "gram": (lambda: Multiply(lambda _, x: x.transpose(1, 2) @ x), TOKENS),
    "attention": (lambda: Multiply(lambda _, x: F.scaled_dot_product_attention(x, x, x)), TOKENS),
    "multi-head attention": (lambda: Attention(nn.MultiheadAttention(4, 2, batch_first=True)), TOKENS),
    "its weights, too": (lambda: Attention(nn.MultiheadAttention(4, 2), need_weights=True), TOKENS),
    "with keys and values of other widths": (
        lambda: Attention(nn.MultiheadAttention(4, 2, kdim=3, vdim=6, batch_first=True)),
        (*TOKENS, torch.rand(2, 5, 3), torch.rand(2, 5, 6)),
    ),
    "encoder": (lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), TOKENS),
    "decoder": (lambda: nn.TransformerDecoderLayer(4, 2, 8, batch_first=True), TOKENS * 2),
    "recurrent": (lambda: Multiply(lambda net, x: net.gru(x)[0], gru=nn.GRU(4, 3)), TOKENS),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", WORK)
def test_multiply_accumulates(name: str) -> None:
    make, inputs = WORK[name]
    module = make()
    trace = Tracer(module.eval())
    trace.run(module, inputs)
    parameters = dict(module.named_parameters())
    work = sum(parameters[name].numel() * positions for name, positions in trace.positions.items())
    work += sum(labels.numel() * times for labels, times, _ in trace.products)
    work += sum(macs for _, macs in trace.refused.values())
    assert work == counted(module, inputs)


MEMORIES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    # Four gates of 6 read 5 inputs and 6 numbers of the step before, in each of 7 steps.
    "LSTM": (lambda: nn.LSTM(5, 6, batch_first=True), 7 * 4 * 6 * (5 + 6)),
    # The same with a projection to 2, which is what the gates read.
    "projected": (lambda: nn.LSTM(5, 6, proj_size=2, batch_first=True), 7 * (4 * 6 * (5 + 2) + 2 * 6)),
    # In both directions; the second layer reads what both give.
    "deep": (
        lambda: nn.LSTM(5, 6, 2, bidirectional=True, batch_first=True),
        7 * 2 * 4 * 6 * ((5 + 6) + (12 + 6)),
    ),
    "GRU": (lambda: nn.GRU(5, 6, batch_first=True), 7 * 3 * 6 * (5 + 6)),
    "RNN": (lambda: nn.RNN(5, 6, batch_first=True), 7 * 6 * (5 + 6)),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", MEMORIES)
def test_layers_with_memory_are_counted_and_stay_whole(name: str, packed: bool) -> None:
    make, macs = MEMORIES[name]

    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.one(x)
        if packed:
            packing = nn.utils.rnn.pack_padded_sequence(y, [7], batch_first=True)
            y = nn.utils.rnn.pad_packed_sequence(net.memory(packing)[0], batch_first=True)[0]
        else:
            y = net.memory(y)[0]
        return net.last(net.two(y[:, -1]).relu())

    width = {"projected": 2, "deep": 12}.get(name, 6)
    net = Net(forward, one=nn.Linear(3, 5), memory=make(), two=nn.Linear(width, 8), last=nn.Linear(8, 2))
    graph = build_graph(net, torch.zeros(1, 7, 3))
    assert [group.name for group in graph.groups] == ["two"]
    weights = {f"memory.{name}" for name, tensor in net.memory.named_parameters() if tensor.dim() > 1}
    assert set(graph.refused) == {"one", "last"} | weights
    assert build_cost(graph).dense[0] == macs + 7 * 3 * 5 + width * 8 + 8 * 2


def test_bilinear_layers_are_counted_and_stay_whole() -> None:
    net = Net(
        lambda net, x: net.last(net.three(net.two(net.one(x), x)).relu()),
        one=nn.Linear(3, 5),
        two=nn.Bilinear(5, 3, 4),
        three=nn.Linear(4, 6),
        last=nn.Linear(6, 2),
    )
    graph = build_graph(net, torch.zeros(1, 3))
    assert [group.name for group in graph.groups] == ["three"]
    assert graph.refused["two"] == "it goes through bilinear, which cannot be followed"
    assert build_cost(graph).dense[0] == 3 * 5 + 5 * 3 * 4 + 4 * 6 + 6 * 2


def test_multi_head_attention_is_followed_through() -> None:
    """What it projects from is read by one weight; what it gives back is made by another."""
    followed = Followed(Attention(nn.MultiheadAttention(4, 2, batch_first=True)), *TOKENS, along=-1)
    assert set(followed.trace.sides) == {"attention.in_proj_weight", "attention.out_proj.weight"}
    outputs, inputs = followed.trace.sides["attention.in_proj_weight"]
    assert followed.letters(followed.sources[0], inputs) == ["abcd", "abcd"]
    # It is split into three and these into two heads, which are all cut alike.
    made, read = followed.letters(outputs, followed.trace.sides["attention.out_proj.weight"][1])
    assert (made, read) == ("ab" * 6, "abab")
    outputs = followed.trace.sides["attention.out_proj.weight"][0]
    assert followed.letters(outputs, followed.along(-1)) == ["abcd", "abcd"]


def test_costs_of_products_of_every_channel_by_itself() -> None:
    """Covariances of positions: fewer channels, fewer of them."""
    net = between(lambda net, y: y @ y.transpose(2, 3)).eval()
    graph = build_graph(net, torch.zeros(1, 3, 8, 8))
    assert [group.name for group in graph.groups] == ["one", "two"]
    for channels in (1, 5, 8):
        smaller = between(lambda net, y: y @ y.transpose(2, 3), into=channels, out=channels)
        assert build_cost(graph)(np.array([channels, 6]))[0] == counted(smaller, (torch.zeros(1, 3, 8, 8),))


NAMES = (
    "conv1d conv2d conv3d convolution conv_transpose1d conv_transpose2d conv_transpose3d linear batch_norm"
    " instance_norm layer_norm rms_norm group_norm matmul bmm mm scaled_dot_product_attention"
)


def test_names_of_the_rules_exist() -> None:
    """Unknown ones are passed over in silence."""
    mine = {packet.__name__ for packet, rule in RULES.items() if rule.__module__ == rules.__name__}
    assert mine >= set(NAMES.split())
