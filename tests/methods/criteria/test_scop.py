"""Mixtures of images and knockoffs whose result is known."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scoring import conv, coupled, scores_of
from torch import Tensor, nn
from torch.nn import functional as F

from rlprune.errors import UserError
from rlprune.methods.criteria import base_gradients
from rlprune.methods.criteria.base import ScoringContext
from rlprune.methods.criteria.scop import control, mixed, trained_shares
from rlprune.models.registry import build_model
from rlprune.tracing.build import build_graph

GAMMAS = [0.5, -2.0, 1.0]


def small() -> Any:
    """Two batch norms around a nonlinearity, on the pixel of 1 x 1 images."""
    torch.manual_seed(0)
    net: Any = nn.Sequential(
        nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Flatten(),
        nn.Linear(2, 2),
    ).eval()  # fmt: skip
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor(GAMMAS))
        net[1].running_mean.copy_(torch.tensor([0.1, 0.2, -0.3]))
    return net


IMAGES = torch.randn(40, 2, 1, 1, generator=torch.Generator().manual_seed(0))
OTHERS = torch.randn(40, 2, 1, 1, generator=torch.Generator().manual_seed(1))
LABELS = (IMAGES[:, 0, 0, 0] > 0).long()


def shares_of(one: float, other: float) -> dict[str, Tensor]:
    return {"1": torch.full((3,), one), "4": torch.full((2,), other)}


def test_all_of_the_images_is_the_network_and_none_of_them_is_that_of_the_knockoffs() -> None:
    net, others = small(), small()(OTHERS)
    for share, expected in ((1.0, net(IMAGES)), (0.0, others)):
        with mixed(net, shares_of(share, share), OTHERS):
            torch.testing.assert_close(net(IMAGES), expected)
    # What the last batch norm reads is all that counts.
    with mixed(net, shares_of(0.3, 0.0), OTHERS):
        torch.testing.assert_close(net(IMAGES), others)
    assert not any(layer._forward_pre_hooks for layer in net)


def test_a_mixture_by_hand() -> None:
    net, first, second = small(), torch.tensor([0.2, 0.7, 1.0]), torch.tensor([0.6, 0.1])
    with mixed(net, {"1": first, "4": second}, OTHERS):
        found = net(IMAGES)
    first, second = first[:, None, None], second[:, None, None]
    maps = net[1](first * net[0](IMAGES) + (1 - first) * net[0](OTHERS)).relu()
    last = second * net[3](maps) + (1 - second) * net[3](net[1](net[0](OTHERS)).relu())
    torch.testing.assert_close(found, net[6](net[5](net[4](last))))


def test_a_batch_norm_that_is_used_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.norm = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.two(self.norm(self.one(x)).relu())).flatten(1)

    net, share = Twice().eval(), torch.tensor([0.2, 0.7])
    with mixed(net, {"norm": share}, OTHERS):
        found = net(IMAGES)
    share = share[:, None, None]
    maps = net.norm(share * net.one(IMAGES) + (1 - share) * net.one(OTHERS)).relu()
    other = net.two(net.norm(net.one(OTHERS)).relu())
    torch.testing.assert_close(found, net.norm(share * net.two(maps) + (1 - share) * other).flatten(1))


def trained(net: nn.Module, draw: Callable[[int], Tensor], epochs: int = 4) -> dict[str, np.ndarray]:
    context, generator = ScoringContext(IMAGES, LABELS), torch.Generator().manual_seed(0)
    return trained_shares(net, {"1": 3, "4": 2}, context, draw, epochs, generator)


def test_knockoffs_that_are_the_images_leave_every_share_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlprune.methods.criteria.scop.BATCH", 1)
    order = torch.cat([torch.randperm(40, generator=torch.Generator().manual_seed(0))])
    places = iter(order.tolist())
    shares = trained(small(), lambda number: IMAGES[[next(places) for _ in range(number)]], epochs=1)
    for share in shares.values():
        assert share == pytest.approx(0.5, abs=1e-6)


def test_the_first_step_goes_against_the_slope() -> None:
    """Of the loss by a share, by central differences; Adam's first step has the size of its rate, here 0.5."""
    net = small().double()
    draws = OTHERS[:32]
    context = ScoringContext(IMAGES[:32].double(), LABELS[:32])

    def loss(layer: str, channel: int, step: float) -> float:
        shares = {name: share.double() for name, share in shares_of(0.5, 0.5).items()}
        shares[layer][channel] += step
        with torch.no_grad(), mixed(net, shares, draws.double()):
            return F.cross_entropy(net(context.images), context.labels).item()

    shares = trained_shares(net, {"1": 3, "4": 2}, context, lambda _: draws.double(), 1, torch.Generator())
    order = torch.randperm(32, generator=torch.Generator())
    context = ScoringContext(context.images[order], context.labels[order])
    for layer, found in shares.items():
        for channel, share in enumerate(found):
            slope = loss(layer, channel, 1e-5) - loss(layer, channel, -1e-5)
            assert share == pytest.approx(0 if slope > 0 else 1, abs=1e-3)


def test_what_tells_classes_is_preferred_to_noise() -> None:
    """The first channel shows the class, the second nothing, and the head adds them up."""
    net: Any = nn.Sequential(conv(torch.eye(2)), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2)).eval()
    with torch.no_grad():
        net[3].weight.copy_(torch.tensor([[-2.0, 1.0], [2.0, -1.0]]))
        net[3].bias.zero_()
    scores = scores_of("scop:epochs=10", net, (IMAGES, LABELS))["0"]
    assert scores[1] == 0
    assert scores[0] > 0.5


def test_scores_are_linear_in_the_shares() -> None:
    graph = build_graph(small(), IMAGES[:1])
    scales = {"1": np.abs(GAMMAS), "4": np.array([1.0, 3.0])}
    shares = {"1": np.array([0.5, 0.75, 1.0]), "4": np.array([0.9, 0.6])}
    assert control(graph, scales, shares) == pytest.approx([0, 1, 1, 0.8, 0.6])
    # 0.5 (-1), 2 (0.5) and 1 (-0.4) are moved by 0.5.
    shares["1"] = np.array([0, 0.75, 0.3])
    assert control(graph, scales, shares)[:3] == pytest.approx([0, 1.5, 0.1])


def test_tied_batch_norms_add_up() -> None:
    net = build_model("resnet20", classes=4, image_size=8, args={"width": 0.25})
    graph = build_graph(net.eval(), torch.zeros(1, 3, 8, 8))
    norms = [layer for layer in graph.groups[0].producers if isinstance(net.get_submodule(layer), nn.BatchNorm2d)]
    assert len(norms) == 4
    scales = {layer: np.arange(1.0, graph.groups[0].channels + 1) for layer in norms}
    scores = control(graph, scales, {layer: np.full(graph.groups[0].channels, 0.75) for layer in norms})
    assert graph.split(scores)[0] == pytest.approx(4 * 0.5 * scales[norms[0]])


def test_the_seed_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    one, same, other = (scores_of("scop", small(), (IMAGES, LABELS), seed)["0"] for seed in (0, 0, 1))
    assert (one == same).all()
    assert (one != other).any()
    monkeypatch.setattr(base_gradients, "PIXELS", 10)
    assert np.isfinite(scores_of("scop", small(), (IMAGES, LABELS))["0"]).all()


def test_knockoffs_of_the_user(tmp_path: Path, write_images: Callable[..., None]) -> None:
    write_images(tmp_path / "made", 5, size=(32, 32))
    net = build_model("resnet20", classes=2, image_size=32, args={"width": 0.25}).eval()
    batch = torch.randn(6, 3, 32, 32), torch.arange(6) % 2
    one, other = (scores_of(name, net, batch) for name in ("scop", f"scop:knockoffs={tmp_path / 'made'}"))
    assert any((one[name] != other[name]).any() for name in one)


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="scop does not apply: the channels of 'wide' pass no batch norm; use l1"):
        scores_of("scop", coupled())
    with pytest.raises(UserError, match=r"scop:knockoffs=.*: no images are there, .* plain scop makes its own"):
        scores_of(f"scop:knockoffs={tmp_path}", small(), (IMAGES, LABELS))
    with pytest.raises(UserError, match="criterion scop:epochs=0: expected 1 or more"):
        scores_of("scop:epochs=0", small(), (IMAGES, LABELS))
