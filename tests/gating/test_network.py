"""Networks with gates, against physical removal."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from gated import MODELS, gate, images, network
from torch import Tensor, nn

from rlprune.errors import UserError
from rlprune.gating.gate import KeepRatios, pool, possible_wires
from rlprune.graph.surgery import prune
from rlprune.tracing.build import build_graph


def keeps(values: Tensor | np.ndarray) -> Callable[..., KeepRatios]:
    """The same (images,) ratios for every gate and both agents."""
    plain = np.asarray(values, dtype=float)
    return lambda number, pooled, importance: KeepRatios(plain, plain)


@pytest.mark.parametrize("name", MODELS)
def test_without_a_decision_and_with_importance_one_nothing_changes(name: str) -> None:
    made = gate(network(name), predicts=False)
    for each in made.gated.gates:
        torch.nn.init.ones_(each.scale)
    made.gated.runtime = None
    torch.testing.assert_close(made.gated(images(3)), made.dense(images(3)))
    assert all(mask.all() for mask in made.gated.masks)


@pytest.mark.parametrize("mix", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", MODELS)
def test_masked_is_removed(name: str, mix: float) -> None:
    """Every image for itself gives what the network without its channels gives; importance is one here."""
    made = gate(network(name), mix, predicts=False)
    for each in made.gated.gates:
        torch.nn.init.ones_(each.scale)
    pictures = images(3)
    with torch.no_grad():
        logits = made.gated(pictures, keeps(np.array([0.3, 0.5, 0.8])))
        for number in range(3):
            kept = np.ones(sum(made.graph.sizes), dtype=bool)
            for wire, mask in zip(made.gated.wires, made.gated.masks, strict=True):
                kept[wire.start : wire.stop] = mask[number].numpy()
            smaller = prune(made.dense, made.graph, kept).eval()
            torch.testing.assert_close(logits[[number]], smaller(pictures[[number]]), rtol=1e-4, atol=1e-5)


def test_without_a_runtime_part_all_images_have_the_static_plan() -> None:
    made = gate(network("vgg11"), 0.0)
    made.gated(images(5))
    for mask, each, keep in zip(made.gated.masks, made.gated.gates, made.runtime.static, strict=True):
        scores = (each.scale.abs() * each.prior).detach().numpy()
        expected = np.argsort(-scores, kind="stable")[: int(np.ceil(float(keep) * len(scores) - 1e-6))]
        assert all(set(row.nonzero()[:, 0].tolist()) == set(expected.tolist()) for row in mask)


def test_kept_channels_are_scaled_by_both_importances() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(4, 2, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x)).mean((2, 3))

    dense = Two().eval()
    made = gate(dense)
    pictures = images(2)
    features, each = dense.a(pictures), made.gated.gate(0)
    importance = pictures.mean((2, 3)) @ each.predictor.weight.T + each.predictor.bias
    ranked = (importance * each.prior).argsort(dim=1)
    mask = torch.ones(2, 4).scatter(1, ranked[:, :2], 0.0)
    expected = dense.b(features * (mask * importance * each.scale)[:, :, None, None]).mean((2, 3))
    torch.testing.assert_close(made.gated(pictures, keeps(np.full(2, 0.5))), expected)
    assert (made.gated.counts() == [[2], [2]]).all()


def test_gradients_reach_predictor_and_importance() -> None:
    made = gate(network("vgg11"))
    made.gated(images(4)).square().sum().backward()
    for each in made.gated.gates:
        assert each.scale.grad.abs().sum() > 0
        assert each.predictor.weight.grad.abs().sum() > 0


def test_what_can_be_chosen() -> None:
    graph = build_graph(net := network("resnet20"), torch.zeros(1, 3, 32, 32))
    # The first convolution of every block; the streams are sums.
    assert [wire.layer for wire in possible_wires(net, graph)] == [
        f"layer{i}.{j}.conv1" for i in (1, 2, 3) for j in range(3)
    ]
    graph = build_graph(net := network("mobilenetv2"), torch.zeros(1, 3, 32, 32))
    found = [wire.layer for wire in possible_wires(net, graph)]
    assert "layers.3.conv1" in found
    assert "layers.3.conv2" not in found


def test_a_network_of_sums_alone_is_refused() -> None:
    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.a(x) + self.b(x)).mean((2, 3))

    net = Sums().eval()
    with pytest.raises(UserError, match="no layer of this network can be skipped image by image"):
        possible_wires(net, build_graph(net, torch.zeros(1, 3, 8, 8)))


def test_several_gates_in_one_input_and_flattened_ones() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 5, 3)
            self.c, self.out = nn.Conv2d(9, 6, 3, stride=4), nn.Linear(6 * 7 * 7, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.c(torch.cat([self.a(x), self.b(x)], 1).relu()).relu().flatten(1))

    made = gate(Mixed().eval(), predicts=False)
    for each in made.gated.gates:
        torch.nn.init.ones_(each.scale)
    assert [wire.layer for wire in made.gated.wires] == ["a", "b", "c"]
    logits = made.gated(images(1), keeps(np.array([0.5])))
    kept = np.concatenate([mask[0].numpy() for mask in made.gated.masks])
    torch.testing.assert_close(logits, prune(made.dense, made.graph, kept)(images(1)))


def test_pooled_features_are_means_over_positions() -> None:
    x = torch.arange(24.0).reshape(2, 3, 2, 2)
    assert pool(x).tolist() == [[1.5, 5.5, 9.5], [13.5, 17.5, 21.5]]
    assert pool(x[:, :, 0, 0]).shape == (2, 3)
