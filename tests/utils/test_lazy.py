"""Lazy layers get their sizes from a run."""

import pytest
import torch
from torch import nn

from rlprune.errors import UserError
from rlprune.utils.lazy import settle


def lazy() -> nn.Sequential:
    return nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d(), nn.Dropout(), nn.Flatten(), nn.LazyLinear(4))


def test_sizes() -> None:
    module = lazy()
    settle(module, lambda: module(torch.zeros(1, 3, 8, 8)), "an image")
    assert (module[0].in_channels, module[1].num_features, module[4].in_features) == (3, 8, 8 * 36)
    assert all(part.training for part in module.modules())
    assert not module[1].running_mean.any()
    calls: list[int] = []
    settle(module, lambda: calls.append(1), "an image")
    assert calls == []


def test_a_network_that_does_not_run() -> None:
    module = lazy()
    with pytest.raises(UserError, match="the network does not run on an image: Expected 3D"):
        settle(module, lambda: module(torch.zeros(8)), "an image")
    assert all(part.training for part in module.modules())
