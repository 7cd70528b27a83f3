"""Derivatives by masks that are written into the network by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from scoring import BATCH, Folding, conv, coupled, head, scores_of
from torch import Tensor, nn
from torch.nn import functional as F

from rlprune.methods.criteria import base_gradients


def masked_forward(net: Any, x: Tensor, masks: dict[str, Tensor]) -> Tensor:
    """`Coupled.forward`, with a mask wherever a layer reads channels."""
    mask = {name: value[None, :, None, None] for name, value in masks.items()}
    x = net.stem_norm(net.stem(x)).relu()
    x = x + net.body(x * mask["stem"])
    x = net.depth(net.wide(x * mask["stem"]).relu() * mask["wide"]).relu() * mask["wide"]
    x = torch.cat([net.left(x), net.right(x)], 1).tanh() * torch.cat([mask["left"], mask["right"]], 1)
    bundles = torch.repeat_interleave(mask["grouped"], 2, dim=1)
    x = net.pairs(net.grouped(x).relu() * bundles) * bundles
    return net.last(net.hidden(x.flatten(1)).tanh() * masks["hidden"])


def squared_slopes(net: nn.Module) -> dict[str, np.ndarray]:
    sizes = {"stem": 4, "wide": 6, "left": 3, "right": 2, "grouped": 4, "hidden": 3}
    total = {name: np.zeros(size) for name, size in sizes.items()}
    for image, label in zip(*BATCH, strict=True):
        masks = {name: torch.ones(size, dtype=torch.float64, requires_grad=True) for name, size in sizes.items()}
        loss = F.cross_entropy(masked_forward(net, image[None].double(), masks), label[None])
        for name, slope in zip(masks, torch.autograd.grad(loss, list(masks.values())), strict=True):
            total[name] += slope.square().numpy()
    return total


def test_one_mask_for_all_layers_that_read_a_channel() -> None:
    expected, scores = squared_slopes(coupled().double()), scores_of("group-fisher", coupled())
    assert scores.keys() == expected.keys()
    for name in expected:
        assert scores[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-9)


def test_in_chunks_is_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scores_of("group-fisher", coupled())
    monkeypatch.setattr(base_gradients, "PIXELS", 4 * 6 * 6)
    for group, scores in scores_of("group-fisher", coupled()).items():
        assert scores == pytest.approx(whole[group], rel=1e-4)


class Siblings(nn.Module):
    """Two layers read the same channels; what the second says of the first of them takes back what the first says."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = (
            conv(torch.rand(3, 3)),
            conv([[1.0, 2.0, 3.0]] * 2),
            conv([[-1.0, 2.0, 0.0]] * 2),
        )
        self.last = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.last((self.one(x) + self.two(x)).mean((2, 3)))


def test_derivatives_of_siblings_are_added_before_they_are_squared() -> None:
    scores = scores_of("group-fisher", Siblings().eval())["stem"]
    assert scores[0] == pytest.approx(0, abs=1e-12)
    assert (scores[1:] > 1e-6).all()


def test_a_channel_that_is_always_zero_is_worth_nothing() -> None:
    net = coupled()
    assert (scores_of("group-fisher", net)["wide"][:2] > 0).all()
    with torch.no_grad():
        net.get_parameter("wide.weight")[0], net.get_parameter("wide.bias")[0] = 0, -1
        net.get_parameter("depth.bias")[0] = -1
    scores = scores_of("group-fisher", net)["wide"]
    assert scores[0] == 0
    assert scores[1] > 0


def test_divided_by_memory_and_by_macs() -> None:
    net = coupled()
    whole = scores_of("group-fisher", net)
    # 6 x 6 places up to the strided depthwise layer, 3 x 3 behind it, 2 x 2 behind the pairs.
    outputs = {"stem": 2 * 36, "wide": 36 + 9, "left": 9, "right": 9, "grouped": 2 * (9 + 4), "hidden": 1}
    macs = {
        # 3 x 3 of three colours; body loses a row and a column; a column of wide.
        "stem": 36 * (27 + 7 + 6),
        # A row of four; its own 3 x 3; a column of left's and right's.
        "wide": 36 * 4 + 9 * 9 + 9 * (3 + 2 * 9),
        # A row of six, and a column of eight.
        "left": 9 * 6 + 9 * 8,
        "right": 9 * 54 + 9 * 8,
        # Two rows of five; a group of 2 x 2 x 2 x 2; two times four inputs of hidden.
        "grouped": 9 * 2 * 5 + 4 * 16 + 8 * 3,
        "hidden": 32 + 2,
    }
    for name, divisors in {"memory": outputs, "macs": macs}.items():
        scores = scores_of(f"group-fisher:per={name}", net)
        for group, divisor in divisors.items():
            assert scores[group] * divisor == pytest.approx(whole[group], rel=1e-5), (name, group)


@pytest.mark.parametrize("before", [False, True])
def test_rows_that_are_no_images(before: bool) -> None:
    torch.manual_seed(0)
    net = Folding(before).eval()
    expected = np.zeros(4)
    for image, label in zip(*BATCH, strict=True):
        mask = torch.ones(4, requires_grad=True)
        values = net.one(image[None]).relu().flatten(2).mT * mask
        loss = F.cross_entropy(net.last(net.two(values).tanh()).mean(1), label[None])
        expected += torch.autograd.grad(loss, mask)[0].square().numpy()
    assert scores_of("group-fisher", net)["one"] == pytest.approx(expected, rel=1e-4)


def test_the_network_is_left_alone() -> None:
    net = coupled().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert len(scores_of("group-fisher", net)) == 6
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())
    assert net.training
    assert not any(layer._forward_pre_hooks for layer in net.modules())


def test_all_images_of_a_plain_network_by_hand() -> None:
    """With logits W a of one layer, the slope by the mask of channel j is (p - y)ᵀ W_j a_j."""
    net = nn.Sequential(conv(torch.eye(3)), *head(3)).eval()
    weight, bias = (value.detach() for value in net[3].parameters())
    means = BATCH[0].mean((2, 3))
    errors = (means @ weight.T + bias).softmax(1) - F.one_hot(BATCH[1], 2)
    expected = ((errors @ weight) * means).square().sum(0)
    assert scores_of("group-fisher", net)["0"] == pytest.approx(expected, rel=1e-4)
