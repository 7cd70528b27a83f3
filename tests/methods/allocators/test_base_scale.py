"""The largest plan of rules that can be followed by hand."""

import numpy as np
from rivalry import make_workload

from rlprune.cost.budget import parse_budget
from rlprune.cost.projection import BudgetProjector
from rlprune.methods.allocators.base_scale import largest_plan


def test_the_largest_plan_of_a_rule_and_a_rule_that_never_fits() -> None:
    """MACs are a + a b + b c + 2 c of 152."""
    projector = BudgetProjector(make_workload().cost, parse_budget({"macs": 50 / 152}))

    def wished(scale: float) -> np.ndarray:
        return np.array([8 * scale, 6 * scale, 8])

    # At a half 4, 3 and 8 have 56, just below it 3, 2 and 8 have 41. The first has room for three more.
    assert largest_plan(projector, wished, 0.01, 1).tolist() == [6, 2, 8]
    # 8, 4 and 8 have 88; in proportion 5, 2 and 5 have 35 and 6, 3 and 6 have 54. Filled up, the last group first.
    assert largest_plan(projector, lambda scale: np.array([8, 4, 8.0]), 0.01, 1).tolist() == [6, 2, 8]
