"""Keep ratios and budgets, against closed forms."""

import numpy as np
import pytest
import torch
from gated import gate, images, network
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rlprune.gating.controller import REACH, Walk, to_keep
from rlprune.gating.layout import LEAST, make_layout


class Chain(nn.Module):
    """Two gates: 3 -> 8 -> 6 channels on 4 x 4 pixels, then 2 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x))).mean((2, 3))


def chain_macs(a: int, b: int) -> float:
    """MACs of a chain relative to the whole one."""
    return (3 * a + a * b + b * 2) / (3 * 8 + 8 * 6 + 6 * 2)


def test_the_even_plan_meets_the_budget() -> None:
    made = gate(Chain())
    layout = make_layout(made.gated, made.cost)
    assert (layout.inputs, layout.channels) == ((3, 8), (8, 6))
    for ratio, macs in zip(layout.ratios, layout.macs, strict=True):
        assert macs == pytest.approx(chain_macs(int(np.ceil(8 * ratio - 1e-6)), int(np.ceil(6 * ratio - 1e-6))))
    assert layout.even(1.0) == 1
    # Half of both: 4 and 3 channels.
    assert layout.ratios[np.searchsorted(layout.macs, chain_macs(4, 3))] == pytest.approx(0.5, abs=0.13)


def test_shares_are_slopes_at_half() -> None:
    layout = make_layout(*[getattr(made := gate(Chain()), name) for name in ("gated", "cost")])
    expected = [2 * (chain_macs(8, 3) - chain_macs(4, 3)), 2 * (chain_macs(4, 6) - chain_macs(4, 3))]
    np.testing.assert_allclose(layout.shares, expected)
    assert len(made.gated.wires) == 2


@given(st.floats(0.01, 1), st.floats(-3, 3), st.floats(-2, 2))
def test_what_an_action_asks_for(even: float, action: float, shift: float) -> None:
    keep = to_keep(np.array([even]), np.array([action]), shift)[0]
    assert min(even, LEAST) <= keep <= 1
    assert keep == pytest.approx(np.clip(even * np.exp(REACH * np.clip(action, -1, 1) + shift), min(even, LEAST), 1))


def test_a_walk_by_hand() -> None:
    made = gate(Chain())
    layout = made.runtime.layout
    budget = np.array([0.4, 0.6])
    walk = Walk(layout, budget)
    even = layout.even(budget)
    np.testing.assert_allclose(walk.context(), np.stack([even, [0, 0], budget], axis=1), rtol=1e-6)
    keep = walk.take(0, np.array([0.0, -1.0]))
    np.testing.assert_allclose(keep, [even[0], even[1] / 2])
    np.testing.assert_allclose(walk.context()[:, 1], [0, -layout.shares[0] * even[1] / 2 / 0.6], rtol=1e-6)


def test_a_new_policy_keeps_the_even_ratio() -> None:
    made = gate(Chain())
    nn.init.zeros_(made.runtime.policy.head.weight)
    made.gated(images(3))
    even = float(made.runtime.layout.even(made.runtime.budget))
    expected = [int(np.ceil(size * even - 1e-6)) for size in (8, 6)]
    assert made.gated.counts().tolist() == [expected] * 3


def test_shifts_are_linear_between_their_points() -> None:
    made = gate(Chain(), acts=False)
    runtime = made.runtime
    runtime.budgets, runtime.shifts = torch.tensor([0.2, 0.6]).double(), torch.tensor([0.4, 0.0]).double()
    runtime.budget = 0.3
    keep = runtime(0, torch.zeros(1, 3), torch.ones(1, 8)).runtime
    assert keep[0] == pytest.approx(float(runtime.layout.even(0.3)) * np.exp(0.3))


def test_it_stays_where_it_decides() -> None:
    made = gate(Chain())
    made.gated.to("meta")
    assert made.runtime.static.device.type == "cpu"
    assert made.runtime.policy.head.weight.device.type == "cpu"
    made.gated.half()
    assert made.runtime.static.dtype == torch.float64


def test_other_budgets_are_drawn_in_training_only() -> None:
    made = gate(network("vgg11"), acts=False)
    made.runtime.spread = (0.1, 0.9)
    made.runtime.eval()(0, torch.zeros(400, 3), torch.zeros(400, 9))
    torch.manual_seed(0)
    still = made.runtime(0, torch.zeros(400, 3), torch.zeros(400, 9)).runtime
    drawn = made.runtime.train()(0, torch.zeros(400, 3), torch.zeros(400, 9)).runtime
    assert len(np.unique(still)) == 1
    assert 60 < (drawn != still[0]).sum() < 140
