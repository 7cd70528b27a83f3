"""Second derivatives with closed forms."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
import torch
from scoring import BATCH, conv, coupled, scores_of
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from rlprune.errors import UserError
from rlprune.methods.criteria.base import ScoringContext
from rlprune.methods.criteria.obd import OptimalBrainDamage
from rlprune.tasks.classification import Classification
from rlprune.tracing.build import build_graph


@dataclass(frozen=True)
class Regression(Classification):
    """Half the squared error."""

    def loss(self, output: Tensor, target: Tensor, *, smoothing: float = 0.0, each: bool = False) -> Tensor:
        errors = (output - target).square().sum(1) / 2
        return errors if each else errors.mean()


SECONDS = ("gauss-newton", "exact")


@pytest.mark.parametrize("second", SECONDS)
def test_linear_regression(second: str) -> None:
    # The output is the sum of all channels: the error's second derivative by w is the mean square of its input.
    weights = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.0, 1.0]])
    net = nn.Sequential(conv(weights), nn.Flatten(), nn.Linear(2, 1, bias=False)).eval()
    nn.init.ones_(net[2].weight)  # type: ignore[arg-type]
    images, targets = torch.randn(5, 3, 1, 1), torch.randn(5, 1)
    squares = images.flatten(1).square().mean(0)
    graph = build_graph(net, images[:1])
    criterion = OptimalBrainDamage(second)  # type: ignore[arg-type]
    scores = criterion.score(net, graph, ScoringContext(images, targets, task=Regression()))
    assert scores == pytest.approx((weights.square() * squares).sum(1) / 2, rel=1e-4)


@pytest.mark.parametrize("second", SECONDS)
def test_it_is_the_rise_of_the_loss_of_a_separable_quadratic_at_its_minimum(second: str) -> None:
    # Output k is a_k w_k for the image that is e_k, and the targets are met.
    weights, slopes = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([1.0, 3.0, 2.0])
    net = nn.Sequential(conv(torch.diag(weights)), nn.Flatten(), nn.Linear(3, 3, bias=False)).eval()
    with torch.no_grad():
        net[2].weight.copy_(torch.diag(slopes))  # type: ignore[operator]
    images, task = torch.eye(3)[:, :, None, None], Regression()
    targets = net(images).detach()
    rises = []
    for channel in range(3):
        without = nn.Sequential(conv(torch.diag(weights * (torch.arange(3) != channel))), *net[1:])
        rises.append(task.loss(without(images), targets).item())
    criterion = OptimalBrainDamage(second)  # type: ignore[arg-type]
    scores = criterion.score(net, build_graph(net, images[:1]), ScoringContext(images, targets, task=task))
    assert scores == pytest.approx(rises, rel=1e-4)


NAMES = ("stem", "body", "wide", "depth", "left", "right", "grouped", "pairs", "hidden")


def summed(saliencies: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Group -> those of its channels, of the weights' saliencies."""
    one = {name: saliencies[f"{name}.weight"].flatten(1).sum(1).numpy() for name in NAMES}
    return {
        "stem": one["stem"] + one["body"], "wide": one["wide"] + one["depth"], "left": one["left"],
        "right": one["right"], "grouped": (one["grouped"] + one["pairs"]).reshape(4, 2).sum(1), "hidden": one["hidden"],
    }  # fmt: skip


def doubles(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().double() for name, value in net.state_dict().items() if value.is_floating_point()}


def test_gauss_newton_of_two_classes() -> None:
    """With logit difference d of odds p, the mean over images of p (1 - p) (dd/dw)²; nothing is left to chance."""
    net = coupled()
    state = doubles(net)
    weights = {f"{name}.weight": state[f"{name}.weight"].requires_grad_() for name in NAMES}
    total = {name: torch.zeros_like(value) for name, value in weights.items()}
    for image in BATCH[0].double():
        logits = functional_call(net, state | weights, image[None])[0]
        difference = logits[0] - logits[1]
        odds = torch.sigmoid(difference.detach())
        slopes = torch.autograd.grad(difference, list(weights.values()))
        for name, slope in zip(weights, slopes, strict=True):
            total[name] += odds * (1 - odds) * slope.square() / len(BATCH[0])
    expected = summed({name: (total[name] * weights[name].detach().square()) / 2 for name in weights})
    for seed in (0, 1):
        scores = scores_of("obd", net, seed=seed)
        assert all(scores[name] == pytest.approx(expected[name], rel=1e-3) for name in expected)


def test_exact_is_the_diagonal_of_the_hessian() -> None:
    net = coupled()
    state, saliencies = doubles(net), {}
    for name in [f"{name}.weight" for name in NAMES]:
        whole = state[name]

        def loss(value: Tensor, name: str = name) -> Tensor:
            return F.cross_entropy(functional_call(net, state | {name: value}, BATCH[0].double()), BATCH[1])

        hessian = torch.autograd.functional.hessian(loss, whole)
        assert isinstance(hessian, Tensor)
        diagonal = hessian.reshape(whole.numel(), -1).diagonal().reshape(whole.shape)
        saliencies[name] = diagonal * whole.square() / 2
    scores = scores_of("obd:second=exact", net)
    for name, expected in summed(saliencies).items():
        assert scores[name] == pytest.approx(expected.clip(min=0), rel=1e-3, abs=1e-6)


def test_directions_drawn_at_random_are_right_on_the_average(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all signs it is w² / 2 times the diagonal of Jᵀ (diag p - p pᵀ) J, J the Jacobian of the logits."""
    torch.manual_seed(0)
    weights, last, pixel = torch.randn(2, 3), torch.randn(4, 2), torch.randn(3)
    net = nn.Sequential(conv(weights), nn.Flatten(), nn.Linear(2, 4, bias=False)).eval()
    with torch.no_grad():
        net[2].weight.copy_(last)  # type: ignore[operator]
    odds = (last @ weights @ pixel).softmax(0)
    spread = torch.diag(odds) - torch.outer(odds, odds)
    curvatures = torch.stack([(column @ spread @ column) * pixel.square() for column in last.T])
    images = pixel[None, :, None, None]
    graph, context = build_graph(net, images), ScoringContext(images, torch.tensor([0]))
    drawn = []
    for signs in product((0, 1), repeat=4):
        monkeypatch.setattr(torch, "randint", lambda *_, signs=signs, **__: torch.tensor(signs))
        drawn.append(OptimalBrainDamage().score(net, graph, context))
    assert np.mean(drawn, axis=0) == pytest.approx((weights.square() * curvatures).sum(1) / 2, rel=1e-4)
    assert np.ptp(drawn, axis=0).min() > 1e-3


def test_the_same_seed_draws_the_same() -> None:
    net = nn.Sequential(conv(torch.randn(2, 3)), nn.Flatten(), nn.Linear(2, 4)).eval()
    batch = torch.randn(3, 3, 1, 1), torch.tensor([0, 1, 2])
    one, same, other = (scores_of("obd", net, batch, seed)["0"] for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).all()


def test_a_sure_network_has_no_second_derivative() -> None:
    net = nn.Sequential(conv(torch.ones(2, 3)), nn.Flatten(), nn.Linear(2, 2, bias=False)).eval()
    with torch.no_grad():
        net[2].weight.copy_(torch.tensor([[1e4, 1e4], [-1e4, -1e4]]))  # type: ignore[operator]
    scores = scores_of("obd", net, (torch.ones(2, 3, 1, 1), torch.tensor([0, 0])))["0"]
    assert scores.tolist() == [0, 0]


@pytest.mark.parametrize("margin", [1.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0])
def test_it_holds_however_sure_a_network_is(margin: float) -> None:
    """The output of the right class of ten is `margin` times the first channel: h w² / 2 is p (1 - p) margin² / 2."""
    net = nn.Sequential(conv(torch.ones(2, 1)), nn.Flatten(), nn.Linear(2, 10, bias=False)).eval()
    with torch.no_grad():
        net[2].weight.zero_()[0, 0] = margin  # type: ignore[operator]
    images, labels = torch.ones(400, 1, 1, 1), torch.zeros(400, dtype=torch.int64)
    score = scores_of("obd", net, (images, labels))["0"]
    wrong = 9 * np.exp(-margin)
    assert score[0] == pytest.approx(wrong / (1 + wrong) ** 2 * margin**2 / 2, rel=0.3, abs=1e-11)
    assert score[1] == 0


def test_mistakes() -> None:
    net = nn.Sequential(conv(torch.ones(300, 100)), nn.Flatten(), nn.Linear(300, 2)).eval()
    batch = torch.ones(2, 100, 1, 1), torch.tensor([0, 1])
    with pytest.raises(UserError, match="a backward pass a weight, 20,000 at most and not 30,000: use obd"):
        scores_of("obd:second=exact", net, batch)
    net = nn.Sequential(conv(torch.ones(2, 3)), nn.Hardsigmoid(), nn.Flatten(), nn.Linear(2, 2)).eval()
    with pytest.raises(UserError, match="obd:second=exact does not apply to this network, take obd: derivative for"):
        scores_of("obd:second=exact", net, (torch.ones(2, 3, 1, 1), torch.tensor([0, 1])))


def test_a_loss_that_is_not_convex() -> None:
    class Cosine(Regression):
        def loss(self, output: Tensor, target: Tensor, *, smoothing: float = 0.0, each: bool = False) -> Tensor:
            return -(output - target).square().mean()

    net = nn.Sequential(conv(torch.ones(2, 3)), nn.Flatten(), nn.Linear(2, 1)).eval()
    images = torch.ones(2, 3, 1, 1)
    with pytest.raises(UserError, match="criterion obd does not apply: the loss of the task is not convex in the outp"):
        OptimalBrainDamage().score(
            net, build_graph(net, images[:1]), ScoringContext(images, torch.ones(2, 1), task=Cosine())
        )
