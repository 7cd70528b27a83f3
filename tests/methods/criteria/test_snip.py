"""Sensitivities to a mask of every weight."""

import numpy as np
import pytest
import torch
from scoring import BATCH, coupled, scores_of
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from rlprune.methods.criteria import base_gradients


def sensitivities(net: nn.Module) -> dict[str, np.ndarray]:
    """Layer -> (outputs,) sums of |dL/dc| at c = 1, where every weight is multiplied by a c of its own."""
    weights = {name: value.detach().double() for name, value in net.state_dict().items() if value.is_floating_point()}
    masks = {name: torch.ones_like(value, requires_grad=True) for name, value in weights.items() if value.dim() > 1}
    masked = {name: value * masks[name] if name in masks else value for name, value in weights.items()}
    loss = F.cross_entropy(functional_call(net, masked, BATCH[0].double()), BATCH[1])
    slopes = torch.autograd.grad(loss, list(masks.values()))
    return {
        name.removesuffix(".weight"): slope.abs().flatten(1).sum(1).numpy()
        for name, slope in zip(masks, slopes, strict=True)
    }


def test_masks_of_all_weights() -> None:
    net = coupled()
    expected, scores = sensitivities(net), scores_of("snip", net)
    assert scores["stem"] == pytest.approx(expected["stem"] + expected["body"], rel=1e-4)
    assert scores["wide"] == pytest.approx(expected["wide"] + expected["depth"], rel=1e-4)
    assert scores["left"] == pytest.approx(expected["left"], rel=1e-4)
    assert scores["right"] == pytest.approx(expected["right"], rel=1e-4)
    assert scores["grouped"] == pytest.approx((expected["grouped"] + expected["pairs"]).reshape(4, 2).sum(1), rel=1e-4)
    assert scores["hidden"] == pytest.approx(expected["hidden"], rel=1e-4)


def test_in_chunks_is_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scores_of("snip", coupled())
    monkeypatch.setattr(base_gradients, "PIXELS", 4 * 6 * 6)
    for group, scores in scores_of("snip", coupled()).items():
        assert scores == pytest.approx(whole[group], rel=1e-4)


def test_the_scale_of_a_weight_that_the_next_one_takes_back_does_not_count() -> None:
    net, other = coupled(), coupled()
    with torch.no_grad():
        other.get_parameter("grouped.weight").mul_(4)
        other.get_parameter("grouped.bias").mul_(4)
        other.get_parameter("pairs.weight").div_(4)
    one, two = scores_of("snip", net), scores_of("snip", other)
    assert all(two[name] == pytest.approx(one[name], rel=1e-4) for name in one)
