"""How budgets are met, against closed forms; whole runs are tested with their command."""

import numpy as np
import pytest
import torch
from gated import gate, network

from rlprune.agents.gating.alternation import LARGEST_SHIFT, bisect, project_static
from rlprune.envs.gating import stored_counts


@pytest.mark.parametrize("limit", [-2.7, 0.0, 0.31, 2.9])
def test_the_largest_that_fits_is_found(limit: float) -> None:
    found = bisect(lambda shift: shift <= limit)
    assert limit - 2 * LARGEST_SHIFT / 2**14 <= found <= limit


@pytest.mark.parametrize("budget", [0.2, 0.5, 0.9, 1.0])
def test_a_static_plan_is_as_large_as_its_budget_allows(budget: float) -> None:
    made = gate(network("vgg11"), 0.0)
    keeps = project_static(made.gated, made.cost, made.runtime.static, budget)
    ratio = made.cost.ratios(stored_counts(made.gated, keeps[:, None].numpy()))[0, 0]
    more = (keeps * 1.1).clamp(max=1)[:, None].numpy()
    assert ratio <= budget
    assert ratio == 1 or made.cost.ratios(stored_counts(made.gated, more))[0, 0] > budget
    free = keeps < 1
    factors = (keeps / made.runtime.static)[free]
    torch.testing.assert_close(factors, factors[:1].expand(len(factors)) if len(factors) else factors)
    assert np.isfinite(keeps.numpy()).all()
