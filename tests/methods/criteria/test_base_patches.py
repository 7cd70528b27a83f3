"""Patches against those that PyTorch unfolds."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlprune.errors import UserError
from rlprune.methods.criteria.base_patches import kernels, patches


def drawn() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    "how", [{}, {"stride": 2}, {"padding": 1}, {"dilation": 2, "padding": 2}, {"stride": (2, 1), "padding": (0, 1)}]
)
def test_patches_of_a_convolution(how: dict[str, Any]) -> None:
    layer, x = nn.Conv2d(4, 6, (3, 2), groups=2, **how), torch.randn(3, 4, 7, 6)
    expected = F.unfold(x, (3, 2), **how).unflatten(1, (2, 2, 6)).movedim(0, 3).flatten(3)
    assert torch.equal(patches(layer, x, 0, drawn()), expected)


@pytest.mark.parametrize("settings", [{"padding": "same"}, {"padding": 1, "padding_mode": "circular"}])
def test_a_layer_is_its_kernels_times_its_patches(settings: dict[str, Any]) -> None:
    layers: list[tuple[Any, Tensor]] = [
        (nn.Conv1d(4, 6, 3, bias=False, **settings), torch.randn(2, 4, 5)),
        (nn.Conv2d(4, 6, 3, bias=False, groups=2, **settings), torch.randn(2, 4, 5, 6)),
        (nn.Conv3d(4, 6, 3, bias=False, **settings), torch.randn(2, 4, 5, 4, 3)),
        (nn.Linear(4, 6, bias=False), torch.randn(2, 4)),
    ]
    for layer, x in layers:
        output = torch.einsum("goik,gikp->gop", kernels(layer), patches(layer, x, 0, drawn())).flatten(0, 1)
        expected = layer(x).movedim(1, 0).flatten(1)
        torch.testing.assert_close(output, expected)


def test_a_linear_layer_reads_tokens() -> None:
    layer, x = nn.Linear(4, 6), torch.randn(2, 3, 5, 4)
    assert torch.equal(patches(layer, x, 0, drawn())[0, :, 0], x.flatten(0, 2).T)


def test_a_pointwise_transposed_convolution() -> None:
    layer, x = nn.ConvTranspose2d(4, 6, 1, groups=2, bias=False), torch.randn(2, 4, 3, 3)
    output = torch.einsum("goik,gikp->gop", kernels(layer), patches(layer, x, 0, drawn())).flatten(0, 1)
    torch.testing.assert_close(output, layer(x).movedim(1, 0).flatten(1))


def test_some_are_of_all() -> None:
    layer, x = nn.Conv2d(2, 3, 3), torch.randn(3, 2, 6, 6)
    some, every = patches(layer, x, 5, drawn()), patches(layer, x, 0, drawn())
    assert some.shape == (1, 2, 9, 3 * 5)
    columns = {tuple(column) for column in every[0].flatten(0, 1).T.tolist()}
    assert all(tuple(column) in columns for column in some[0].flatten(0, 1).T.tolist())


def test_other_layers() -> None:
    with pytest.raises(UserError, match="pfp does not apply: Bilinear is no convolution or linear layer"):
        kernels(nn.Bilinear(2, 2, 2))
