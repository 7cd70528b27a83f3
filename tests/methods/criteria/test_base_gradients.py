"""Sums over images in parts, against the whole."""

import copy

import pytest
import torch
from scoring import BATCH, coupled
from torch import Tensor, nn
from torch.nn import functional as F

from rlprune.errors import UserError
from rlprune.methods.criteria import base_gradients
from rlprune.methods.criteria.base import ScoringContext
from rlprune.methods.criteria.base_gradients import chunks, differentiating_twice, first_order, sum_over_images
from rlprune.tasks.classification import CLASSIFICATION
from rlprune.tracing.build import build_graph


@pytest.mark.parametrize(
    ("number", "pixels", "sizes"),
    [(6, 36, [6]), (6, 4 * 36, [4, 2]), (7, 2 * 36 + 35, [2, 2, 2, 1]), (3, 35, [1, 1, 1])],
)
def test_chunks(number: int, pixels: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_gradients, "PIXELS", pixels if len(sizes) > 1 else 2**20)
    images = torch.arange(number)[:, None, None, None].expand(-1, 3, 6, 6)
    parts = [images[part, 0, 0, 0].tolist() for part in chunks(images)]
    assert [len(part) for part in parts] == sizes
    assert [image for part in parts for image in part] == list(range(number))


def products(net: nn.Module) -> dict[str, Tensor]:
    net = copy.deepcopy(net).double()
    F.cross_entropy(net(BATCH[0].double()), BATCH[1]).backward()
    return {name: value.detach() * value.grad for name, value in net.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("size", [None, 1, 4])
def test_weight_times_gradient_of_the_mean_loss(size: int | None) -> None:
    net = coupled()
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    graph, context, expected = build_graph(net, BATCH[0][:1]), ScoringContext(*BATCH), products(coupled())
    found = sum_over_images(net, graph, context, first_order(CLASSIFICATION, len(BATCH[0])), size)
    assert found.keys() == {"stem", "body", "wide", "depth", "left", "right", "grouped", "pairs", "hidden"}
    for layer, rows in found.items():
        torch.testing.assert_close(rows.double(), expected[f"{layer}.weight"].flatten(1), rtol=1e-4, atol=1e-7)
    assert all((parameter.grad == 1).all() for parameter in net.parameters() if parameter.grad is not None)


def test_layers_that_share_a_weight_see_all_of_its_gradient() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.one, self.two = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
            self.last = nn.Linear(3, 2)
            self.two.weight = self.one.weight

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            x = x + self.one(x)
            return self.last((x + self.two(x).relu()).mean((2, 3)))

    torch.manual_seed(0)
    net = Shared().eval()
    graph, context = build_graph(net, BATCH[0][:1]), ScoringContext(*BATCH)
    found = sum_over_images(net, graph, context, first_order(CLASSIFICATION, len(BATCH[0])))
    assert len(found) > 1
    for rows in (rows for layer, rows in found.items() if layer != "stem"):
        torch.testing.assert_close(rows.double(), products(net)["one.weight"].flatten(1), rtol=1e-4, atol=1e-7)


def test_what_has_no_second_derivative_is_told() -> None:
    told = pytest.raises(UserError, match="criterion this does not apply to this network, take that: derivative for")
    with told, differentiating_twice("this", "that"):
        raise RuntimeError("derivative for aten::hardsigmoid_backward is not implemented")
