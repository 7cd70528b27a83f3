"""A network that skips, against the same under masks and a counter of operations."""

import pytest
import torch
from gated import MODELS, Made, gate, images, network
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rlprune.errors import UserError
from rlprune.gating.skipping import SkippingNetwork


def skipping(made: Made) -> SkippingNetwork:
    return SkippingNetwork(made.gated).eval()


@pytest.mark.parametrize("mix", [0.5, 1.0])
@pytest.mark.parametrize("name", MODELS)
def test_gathered_is_masked(name: str, mix: float) -> None:
    made = gate(network(name), mix)
    pictures = images(4)
    with torch.no_grad():
        masked = made.gated(pictures)
        masks = [mask.clone() for mask in made.gated.masks]
    assert any(len(mask.unique(dim=0)) > 1 for mask in masks), "all images alike"
    module = skipping(made)
    alone = torch.cat([module(picture[None]) for picture in pictures])
    torch.testing.assert_close(alone, masked, rtol=1e-4, atol=1e-5)
    for groups in (1, 2, 3):
        torch.testing.assert_close(module.grouped(pictures, groups), masked, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(module(pictures), masked, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_only_what_is_counted_is_computed(name: str) -> None:
    made = gate(network(name), 0.5)
    module = skipping(made)
    for picture in images(3):
        with FlopCounterMode(display=False) as counter:
            module(picture[None])
        counted = made.cost(made.gated.counts())[0, 0]
        # Predictors and policy of a single image are no tensor operations.
        assert counter.get_total_flops() // 2 == counted
        assert counted < made.cost.dense[0]


class Sparse(nn.Module):
    """Kernels of several strides, paddings and dilations on few pixels, and a linear layer behind a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 12, 3, stride=2, padding=1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 10, (3, 1), stride=(1, 2), padding=(2, 1)),
            nn.BatchNorm2d(10),
            nn.ReLU(),
            nn.Conv2d(10, 8, 2, padding=1, dilation=2, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
        )
        self.last = nn.Linear(8 * 4 * 2, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.features(x).flatten(1))


def test_few_pixels_and_large_linear_layers_are_as_under_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    made, pictures = gate(Sparse(), size=4), torch.randn(3, 3, 4, 4)
    module = skipping(made)
    with torch.no_grad():
        masked = made.gated(pictures)
    for few, large in ((0, 1 << 20), (100, 1 << 20), (100, 1)):
        monkeypatch.setattr("rlprune.gating.gathering.FEW", few)
        monkeypatch.setattr("rlprune.gating.gathering.LARGE", large)
        alone = torch.cat([module(picture[None]) for picture in pictures])
        torch.testing.assert_close(alone, masked, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(module.grouped(pictures, 1), masked, rtol=1e-4, atol=1e-5)


def test_the_layers_are_as_before_afterwards() -> None:
    made = gate(network("vgg11"))
    pictures = images(2)
    with torch.no_grad():
        before = made.gated(pictures)
        skipping(made)(pictures[:1])
        torch.testing.assert_close(made.gated(pictures), before, rtol=0, atol=0)
    assert not any("forward" in vars(layer) for layer in made.gated.network.modules())


def test_batch_norms_are_read_anew_after_training() -> None:
    made = gate(network("vgg11"))
    module = skipping(made)
    module(images(1))
    module.train()
    for layer in made.gated.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean += 0.5
    module.eval()
    with torch.no_grad():
        torch.testing.assert_close(module(images(1)), made.gated(images(1)), rtol=1e-4, atol=1e-5)


def test_another_budget_while_in_use() -> None:
    made = gate(network("vgg11"))
    made.runtime.budgets = torch.tensor([0.1, 0.9], dtype=torch.float64)
    made.runtime.shifts = torch.zeros(2, dtype=torch.float64)
    module, costs = skipping(made), []
    for budget in (0.2, 0.5, 0.8):
        module.set_budget(budget)
        module(images(1))
        costs.append(made.cost.ratios(made.gated.counts())[0, 0])
    assert costs == sorted(costs)
    assert costs[0] < costs[2] - 0.2
    assert module.budgets == (0.1, 0.9)
    with pytest.raises(UserError, match=r"0\.95 is out of reach: this network serves 0\.1 to 0\.9"):
        module.set_budget(0.95)


@pytest.mark.parametrize("name", MODELS)
def test_a_group_needs_no_more_than_all_images_together(name: str) -> None:
    module, pictures, done = skipping(gate(network(name))), images(8), []
    for groups in (1, 2, 8):
        with FlopCounterMode(display=False) as counter:
            module.grouped(pictures, groups)
        done.append(counter.get_total_flops())
    assert done[0] >= done[1] >= done[2]
    assert done[0] > done[2]


def test_the_fastest_way_is_measured_once_for_every_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    module, asked = skipping(gate(network("vgg11"))), []
    monkeypatch.setattr(module, "_fastest", lambda pictures: asked.append(len(pictures)) or 1)
    for number in (1, 2, 3, 2, 3):
        module(images(number))
    assert asked == [2, 3]


def test_training_mode_masks_and_learns() -> None:
    made = gate(network("vgg11"))
    module = skipping(made).train()
    module(images(4)).sum().backward()
    assert all(each.scale.grad.isfinite().all() for each in made.gated.gates)


@pytest.mark.parametrize("fastest", [0, 1, 2, 5])
def test_the_fastest_way_is_taken(monkeypatch: pytest.MonkeyPatch, fastest: int) -> None:
    module, clock = skipping(gate(network("vgg11"))), [0.0]

    def run(pictures: torch.Tensor, groups: int) -> torch.Tensor:
        clock[0] += 1 + abs(groups - fastest)
        return pictures

    monkeypatch.setattr(module, "_in_groups", run)
    monkeypatch.setattr("rlprune.gating.skipping.time.perf_counter", lambda: clock[0])
    # 20 images in groups of 4 and of 16.
    assert module._fastest(images(20)) == fastest
