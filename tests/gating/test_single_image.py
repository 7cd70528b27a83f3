"""Decisions for one image are those for a batch of one."""

import numpy as np
import pytest
import torch
from gated import gate, images, network

from rlprune.gating.single_image import Quick


@pytest.mark.parametrize(("mix", "kind"), [
    (1.0, {}), (0.5, {"recurrent": True}), (0.0, {"predicts": False, "acts": False}), (1.0, {"acts": False}),
    (1.0, {"predicts": False})
])  # fmt: skip
def test_the_same_channels_and_factors(mix: float, kind: dict[str, bool]) -> None:
    made = gate(network("vgg11"), mix, **kind)
    made.runtime.budgets, made.runtime.shifts = torch.tensor([0.2, 0.9]).double(), torch.tensor([0.3, -0.1]).double()
    quick, seen = Quick(made.gated, made.runtime), []

    def choose(number: int, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mask, factor = quick.decide(number, pooled[0].numpy())
        expected = made.gated.chosen(number, pooled)
        seen.append(mask.sum())
        np.testing.assert_array_equal(mask, expected[0][0].numpy())
        np.testing.assert_allclose(factor, expected[1][0].detach().numpy(), rtol=1e-4, atol=1e-5)
        return expected

    made.gated.choose = choose
    with torch.no_grad():
        for picture in images(3):
            made.gated(picture[None])
    assert len(seen) == 24
