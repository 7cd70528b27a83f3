"""Scores of networks small enough for a calculation by hand."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scoring import BATCH as IMAGES
from scoring import coupled, scores_of, with_needs
from torch import Tensor, nn
from torch.nn import functional as F

from rlprune import registry
from rlprune.errors import UserError
from rlprune.graph.structure import Graph
from rlprune.graph.surgery import prune
from rlprune.methods.criteria import base_gradients
from rlprune.methods.criteria.base import score_channels
from rlprune.plans.counts import top_mask
from rlprune.tracing.build import build_graph

NEED_BATCH_NORM = ("bn-scale", "scop")


class Residual(nn.Module):
    """One group of two channels from two layers, and one of three channels."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)
        self.two, self.three, self.last = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 2, 1, bias=False), nn.Linear(2, 2)
        with torch.no_grad():
            self.one.weight.copy_(torch.tensor([[3.0, -4.0, 0.0], [1.0, 0.0, 0.0]])[..., None, None])
            self.norm.weight.copy_(torch.tensor([-0.5, 1.5]))
            self.two.weight.copy_(torch.tensor([[1.0, 1.0], [2.0, 0.0], [0.0, -3.0]])[..., None, None])
            self.three.weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [2.0, 2.0, 1.0]])[..., None, None])

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.one(x))
        return self.last((x + self.three(self.two(x).relu())).mean((2, 3)))


torch.manual_seed(0)  # finite differences are not good enough for any weights of the layers that are left to chance
NET: Any = Residual().eval()
BATCH = torch.randn(6, 3, 2, 2, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 2


def graph() -> Graph:
    found = build_graph(NET, torch.zeros(1, 3, 2, 2))
    assert [(group.name, group.channels) for group in found.groups] == [("one", 2), ("two", 3)]
    return found


def test_l1() -> None:
    # Filters 7, 1 have mean 4 and filters 1, 5 mean 3; filters 2, 2, 3 have mean 7 / 3.
    expected = [7 / 4 + 1 / 3, 1 / 4 + 5 / 3, 6 / 7, 6 / 7, 9 / 7]
    assert score_channels("l1", NET, graph(), BATCH) == pytest.approx(expected)


def test_l2() -> None:
    # 5, 1; 1, 3; sqrt 2, 2, 3.
    mean = (2**0.5 + 5) / 3
    expected = [5 / 3 + 1 / 2, 1 / 3 + 3 / 2, 2**0.5 / mean, 2 / mean, 3 / mean]
    assert score_channels("l2", NET, graph(), BATCH) == pytest.approx(expected)


def test_bn_scale() -> None:
    net: Any = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(2, 2),
    ).eval()  # fmt: skip
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([1.0, -2.0, 4.0, 1.0]))
        net[3].weight.copy_(torch.tensor([0.0, -0.2]))
    scores = score_channels("bn-scale", net, build_graph(net, torch.zeros(1, 3, 2, 2)), BATCH)
    assert scores == pytest.approx([0.5, 1, 2, 0.5, 0, 2])


def test_bn_scale_needs_batch_norms() -> None:
    with pytest.raises(UserError, match="bn-scale does not apply: the channels of 'two' pass no batch norm; use l1"):
        score_channels("bn-scale", NET, graph(), BATCH)


def effects(name: str) -> np.ndarray:
    """The squared change of the loss per relative change of a filter, by central differences."""
    found = []
    for channel in range(len(NET.get_parameter(f"{name}.weight"))):
        losses = []
        for step in (1e-3, -1e-3):
            moved = copy.deepcopy(NET).double()
            with torch.no_grad():
                moved.get_parameter(f"{name}.weight")[channel] *= 1 + step
                losses.append(F.cross_entropy(moved(BATCH[0].double()), BATCH[1]).item())
        found.append(((losses[0] - losses[1]) / 2e-3) ** 2)
    return np.array(found) / np.mean(found)


def test_taylor() -> None:
    scores = score_channels("taylor", NET, graph(), BATCH)
    expected = [*(effects("one") + effects("three")), *effects("two")]
    assert scores == pytest.approx(expected, rel=1e-3)


def curved_effects(name: str) -> np.ndarray:
    """What filters add to the loss up to the second order, by central differences: g w - w (H W) / 2."""

    def slope(channel: int, scale: float) -> float:
        """Of the loss along a filter, where all weights of the groups are scaled."""
        losses = []
        for step in (1e-3, -1e-3):
            moved = copy.deepcopy(NET).double()
            with torch.no_grad():
                whole = moved.get_parameter(f"{name}.weight")[channel].clone()
                for layer in (moved.one, moved.two, moved.three):
                    layer.weight *= scale
                moved.get_parameter(f"{name}.weight")[channel] += step * whole
                losses.append(F.cross_entropy(moved(BATCH[0].double()), BATCH[1]).item())
        return (losses[0] - losses[1]) / 2e-3

    channels = range(len(NET.get_parameter(f"{name}.weight")))
    bends = [(slope(channel, 1 + 1e-3) - slope(channel, 1 - 1e-3)) / 2e-3 for channel in channels]
    found = np.array([slope(channel, 1) - bend / 2 for channel, bend in zip(channels, bends, strict=True)]) ** 2
    return found / found.mean()


def test_taylor_of_the_second_order() -> None:
    scores = score_channels("taylor:order=2", NET, graph(), BATCH)
    expected = [*(curved_effects("one") + curved_effects("three")), *curved_effects("two")]
    assert scores == pytest.approx(expected, rel=1e-2)
    assert scores != pytest.approx(score_channels("taylor", NET, graph(), BATCH), rel=0.1)


@pytest.mark.parametrize("name", ["taylor", "taylor:order=2"])
def test_taylor_in_parts_is_taylor_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six images, four at a time: the mean loss is 4/6 of the first part's and 2/6 of the second's."""
    whole, seen = score_channels(name, NET, graph(), BATCH), []
    monkeypatch.setattr(base_gradients, "PIXELS", 4 * 2 * 2)
    hook = NET.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    parts = score_channels(name, NET, graph(), BATCH)
    hook.remove()
    assert seen[-2:] == [4, 2]
    assert parts == pytest.approx(whole, rel=1e-5)


def test_taylor_of_the_second_order_needs_second_derivatives() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Hardsigmoid(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    found = build_graph(net.eval(), torch.zeros(1, 3, 2, 2))
    with pytest.raises(UserError, match="taylor:order=2 does not apply to this network, take taylor: derivative for"):
        score_channels("taylor:order=2", net, found, BATCH)
    assert len(score_channels("taylor", net, found, BATCH)) == 4


@pytest.mark.parametrize("name", registry.names("criterion"))
def test_the_network_is_left_alone(name: str, tmp_path: Path) -> None:
    if name in NEED_BATCH_NORM:
        pytest.skip("has groups without batch norm")
    net, other = coupled().train(), coupled()
    name = with_needs(name, other, tmp_path)
    net.get_submodule("wide").requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    for group, scores in scores_of(name, net).items():
        assert scores == pytest.approx(scores_of(name, other)[group])
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(parameter.requires_grad != key.startswith("wide") for key, parameter in net.named_parameters())
    assert all(layer.training and not layer._forward_pre_hooks and not layer._forward_hooks for layer in net.modules())


@pytest.mark.parametrize("name", registry.names("criterion"))
def test_the_channels_that_score_highest_are_left(name: str, tmp_path: Path) -> None:
    if name in NEED_BATCH_NORM:
        pytest.skip("has groups without batch norm")
    net = coupled()
    found = build_graph(net, IMAGES[0][:1])
    scores = score_channels(with_needs(name, net, tmp_path), net, found, IMAGES)
    smaller: Any = prune(net, found, top_mask(found, found.sizes - 1, scores))
    assert smaller(IMAGES[0]).shape == (6, 2)
    stay = np.sort(np.argsort(-found.split(scores)[0], kind="stable")[:3])
    assert torch.equal(smaller.stem_norm.weight, net.get_parameter("stem_norm.weight")[torch.from_numpy(stay)])


ORDERS = {"stem": [2, 0, 3, 1], "wide": [5, 3, 1, 0, 2, 4], "left": [2, 0, 1], "hidden": [1, 2, 0]}


def reordered() -> nn.Module:
    """`coupled` with the channels of some groups in another order, and otherwise the same."""
    net: Any = coupled()
    stem, wide, left, hidden = (torch.tensor(order) for order in ORDERS.values())
    both = torch.cat([left, torch.tensor([3, 4])])
    made = {"stem": stem, "stem_norm": stem, "body": stem, "wide": wide, "depth": wide, "left": left, "hidden": hidden}
    read = {"body": stem, "wide": stem, "left": wide, "right": wide, "grouped": both, "last": hidden}
    with torch.no_grad():
        for name, order in made.items():
            for key, tensor in net.get_submodule(name).state_dict().items():
                tensor.copy_(tensor[order] if key != "num_batches_tracked" else tensor)
        for name, order in read.items():
            weight = net.get_submodule(name).weight
            weight.copy_(weight[:, order])
    torch.testing.assert_close(net(IMAGES[0]), coupled()(IMAGES[0]))
    return net  # type: ignore[no-any-return]


WITHOUT_DRAWING = [
    {"pfp": "pfp:positions=0"}.get(name, name)
    for name in registry.names("criterion")
    # What dies out in `write_snapshots` is drawn, and not reordered.
    if name not in ("random", "obd", "kgp")
]


@pytest.mark.parametrize("name", [*WITHOUT_DRAWING, "obd:second=exact", "norm:p=3", "activation:of=std"])
def test_scores_go_with_their_channels(name: str, tmp_path: Path) -> None:
    if name in NEED_BATCH_NORM:
        pytest.skip("has groups without batch norm")
    scores, others = (scores_of(with_needs(name, net, tmp_path), net) for net in (coupled(), reordered()))
    for group in scores:
        assert others[group] == pytest.approx(scores[group][ORDERS.get(group, slice(None))], rel=1e-4, abs=1e-8)


def test_random_is_the_seeds() -> None:
    one, same, other = (score_channels("random", NET, graph(), BATCH, seed) for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).all()
    assert len(np.unique(one)) == 5


@pytest.mark.parametrize("name", registry.names("criterion"))
def test_scores_of_real_networks(network: nn.Module, name: str, tmp_path: Path) -> None:
    found = build_graph(network, torch.zeros(1, 3, 32, 32))
    if name in NEED_BATCH_NORM and not hasattr(network, "conv1") and not hasattr(network, "features"):
        pytest.skip("has groups without batch norm")
    name = with_needs(name, network, tmp_path)
    scores = score_channels(name, network, found, (torch.randn(4, 3, 32, 32), torch.arange(4)))
    assert scores.dtype == np.float64
    assert scores.shape == (found.sizes.sum(),)
    assert np.isfinite(scores).all()
    assert (scores >= 0).all()
    assert np.ptp(scores) > 0


def test_layers_whose_weight_is_computed_do_not_count() -> None:
    net = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 1)), nn.Conv2d(4, 2, 1), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(2, 2),
    ).eval()  # fmt: skip
    found = build_graph(net, torch.zeros(1, 3, 2, 2))
    for name in ("l1", "taylor"):
        assert len(score_channels(name, net, found, BATCH)) == 2


class Bare(nn.Module):
    """Its first filters are a parameter of the network itself."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.two, self.last = nn.Parameter(torch.randn(4, 3, 1, 1)), nn.Conv2d(4, 3, 1), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.two(F.conv2d(x, self.kernel).relu()).mean((2, 3)))


@pytest.mark.parametrize("name", ["l1", "fpgm", "activation", "pfp", "taylor", "snip", "obd", "group-fisher"])
def test_filters_without_a_layer(name: str) -> None:
    scores = scores_of(name, Bare().eval())
    assert {group: len(mine) for group, mine in scores.items()} == {"kernel": 4, "two": 3}
    assert all((mine > 0).any() for mine in scores.values())


def test_unknown_name() -> None:
    with pytest.raises(UserError, match="unknown criterion 'tailor': did you mean 'taylor'"):
        score_channels("tailor", NET, graph(), BATCH)


@pytest.mark.parametrize("criterion", ["l1", "taylor"])
def test_a_wrapped_network_is_scored_as_the_one_inside(criterion: str) -> None:
    alone = score_channels(criterion, NET, graph(), BATCH)
    assert np.array_equal(score_channels(criterion, nn.DataParallel(NET), graph(), BATCH), alone)
