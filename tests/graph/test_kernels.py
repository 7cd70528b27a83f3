"""Gather, grouped convolution and scatter against the dense convolution with zeros."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from workshop import macs

from rlprune.errors import UserError
from rlprune.graph.kernels import GroupedKernels, KernelCut, cut_kernels, groups_of, put_kernels, why_whole

CUT = KernelCut(((0, 3), (1, 2)), ((0, 2), (2, 4)))
"""Of 4 filters with 5 slices."""


def zeroed(layer: nn.Module, cut: KernelCut) -> nn.Module:
    """The dense layer with zeros, one kernel after the other."""
    found = copy.deepcopy(layer)
    weight = found.get_parameter("weight").detach()
    for filters, slices in zip(cut.filters, cut.slices, strict=True):
        for one in filters:
            for slice in range(weight.shape[1]):
                if slice not in slices:
                    weight[one, slice] = 0
    return found


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (nn.Conv2d(5, 4, 3), (9, 7)),
        (nn.Conv2d(5, 4, 1, stride=2, bias=False), (8, 8)),
        (nn.Conv2d(5, 4, 3, padding="same", dilation=2, padding_mode="reflect"), (9, 9)),
        (nn.Conv2d(5, 4, (3, 1), padding=(1, 0), padding_mode="circular"), (6, 6)),
        (nn.Conv1d(5, 4, 3, padding=1), (11,)),
        (nn.Conv3d(5, 4, 3), (5, 5, 5)),
    ],
)
def test_it_computes_what_the_layer_with_zeros_does(layer: nn.Module, size: tuple[int, ...]) -> None:
    layer = layer.double()
    images = torch.randn(3, 5, *size, dtype=torch.float64)
    found = GroupedKernels(layer, CUT)(images)
    assert torch.allclose(found, zeroed(layer, CUT)(images), atol=1e-14, rtol=0)
    assert torch.equal(CUT.mask(5).sum(1), torch.tensor([2, 2, 2, 2]))


def test_channels_stay_last() -> None:
    layer, images = nn.Conv2d(5, 4, 3).double(), torch.randn(2, 5, 6, 6, dtype=torch.float64)
    smaller = GroupedKernels(layer, CUT).to(memory_format=torch.channels_last)
    found = smaller(images.to(memory_format=torch.channels_last))
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(found, zeroed(layer, CUT)(images), atol=1e-14, rtol=0)


@st.composite
def cuts(draw: Any) -> tuple[KernelCut, int]:
    groups, each, inputs = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(2, 6))
    order, kept = draw(st.permutations(range(groups * each))), draw(st.integers(1, inputs))
    filters = tuple(tuple(order[start : start + each]) for start in range(0, groups * each, each))
    slices = tuple(tuple(sorted(draw(st.permutations(range(inputs)))[:kept])) for _ in range(groups))
    return KernelCut(filters, slices), inputs


@settings(max_examples=40, deadline=None)
@given(cuts())
def test_any_cut_is_the_layer_with_zeros(given: tuple[KernelCut, int]) -> None:
    cut, inputs = given
    layer = nn.Conv2d(inputs, cut.outputs, 2, dtype=torch.float64)
    smaller, images = GroupedKernels(layer, cut), torch.randn(2, inputs, 3, 3, dtype=torch.float64)
    assert torch.allclose(smaller(images), zeroed(layer, cut)(images), atol=1e-14, rtol=0)
    assert sorted(smaller.outputs.tolist()) == list(range(cut.outputs))
    assert smaller.conv.weight.numel() == cut.mask(inputs).sum() * 4 == cut.outputs * cut.kept * 4


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 4, 3, padding=1), nn.Conv2d(4, 4, 1))


def test_a_network_is_cut_in_a_copy_and_does_as_much_less() -> None:
    dense = net()
    dense[2].weight.requires_grad_(False)
    before = copy.deepcopy(dense.state_dict())
    smaller = cut_kernels(dense, {"2": CUT})
    assert all(torch.equal(before[name], tensor) for name, tensor in dense.state_dict().items())
    # 16 x 16 positions, 4 filters of 9 numbers a slice, of which 2 stay of 5.
    assert macs(dense) - macs(smaller) == 256 * 4 * 9 * 3
    assert sum(map(torch.Tensor.numel, dense.parameters())) - sum(map(Tensor.numel, smaller.parameters())) == 4 * 9 * 3
    assert not smaller[2].conv.weight.requires_grad
    assert smaller[2].conv.bias.requires_grad
    assert type(smaller[3]) is nn.Conv2d


def test_gradients_are_those_of_the_kernels_that_stay() -> None:
    layer, images = nn.Conv2d(5, 4, 3).double(), torch.randn(2, 5, 6, 6, dtype=torch.float64)
    other, smaller = zeroed(layer, CUT), GroupedKernels(layer, CUT)
    for each in (other, smaller):
        (each(images) ** 2).sum().backward()
    gradient = other.get_parameter("weight").grad
    assert gradient is not None
    expected = torch.cat([gradient[list(f)][:, list(s)] for f, s in zip(CUT.filters, CUT.slices, strict=True)])
    assert smaller.conv.weight.grad is not None
    assert torch.allclose(smaller.conv.weight.grad, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("filters", "slices", "why"),
    [
        (((0, 1),), ((0,), (1,)), "as many groups"),
        (((0, 1), (2,)), ((0,), (1,)), "equally large"),
        (((0, 1), (2, 3)), ((0,), (1, 2)), "equally large"),
        (((0, 1), (2, 3)), ((), ()), "keep nothing"),
        (((0, 1), (1, 3)), ((0,), (1,)), "in just one"),
        (((0, 1), (2, 4)), ((0,), (1,)), "in just one"),
        (((0, 1), (2, 3)), ((1, 0), (1, 2)), "ascending"),
        (((0, 1), (2, 3)), ((-1, 0), (1, 2)), "ascending"),
        ((), (), "as many groups"),
    ],
)
def test_what_is_no_cut(filters: Any, slices: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        KernelCut(filters, slices)


@pytest.mark.parametrize(
    ("name", "said"),
    [("1", "'1', which is no plain convolution"), ("7", "'7', which is no"), ("0", "5 filters of 3 slices"),
     ("3", "4 filters of 4 slices")],
)  # fmt: skip
def test_a_cut_of_another_layer(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        put_kernels(net(), {name: CUT})


def test_which_layers_stay_whole() -> None:
    shared = nn.Conv2d(4, 4, 1)
    tied = nn.Conv2d(4, 4, 1)
    tied.weight = shared.weight
    weighed = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1))
    network = nn.ModuleDict(
        {"one": nn.Conv2d(1, 8, 3), "prime": nn.Conv2d(4, 11, 3), "deep": nn.Conv2d(8, 8, 3, groups=8), "a": shared,
         "b": shared, "tied": tied, "weighed": weighed, "good": nn.Conv2d(2, 6, 1)}
    )  # fmt: skip
    reasons = {name: why_whole(network, name, 8) for name in network}
    assert reasons.pop("good") is None
    assert reasons == {
        "one": "its filters have a single slice",
        "prime": "its 11 filters make no equal groups, 8 at most",
        "deep": "it is a grouped convolution already",
        "a": "it shares its weights",
        "b": "it shares its weights",
        "tied": "it shares its weights",
        "weighed": "it is no plain convolution",
    }


def test_as_many_groups_as_filters_make() -> None:
    assert [groups_of(filters, 8) for filters in (16, 12, 10, 8, 7, 6, 9, 11)] == [8, 6, 5, 8, 7, 6, 3, 1]
