"""The front holds exactly the plans that nobody beats."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from toys import make_spec

from rlprune.evaluation.pareto import front
from rlprune.tasks.base import Evaluation

PLAN = st.tuples(*[st.integers(1, 8)] * 3)


@given(st.dictionaries(PLAN, st.integers(0, 5).map(float), min_size=1, max_size=30))
def test_against_all_pairs(losses: dict[tuple[int, ...], float]) -> None:
    cost = make_spec().projector.cost
    table = front({plan: Evaluation(loss, 1 - loss / 10) for plan, loss in losses.items()}, cost, "macs")
    price = {plan: float(cost.ratios(np.array(plan))[0]) for plan in losses}
    found = [tuple(map(int, text.split())) for text in table["counts"]]

    def beaten(plan: tuple[int, ...]) -> bool:
        return any(
            price[other] <= price[plan]
            and losses[other] <= losses[plan]
            and (price[other], losses[other]) != (price[plan], losses[plan])
            for other in losses
        )

    assert not any(beaten(plan) for plan in found)
    # Of plans with the same cost and the same loss one is enough.
    assert {(price[plan], losses[plan]) for plan in losses if not beaten(plan)} == {
        (price[plan], losses[plan]) for plan in found
    }
    assert table["macs_ratio"].tolist() == sorted(price[plan] for plan in found)
    assert table["loss"].tolist() == [losses[plan] for plan in found]


def test_of_parameters() -> None:
    """The first group costs few MACs and many parameters less: what is cheap differs."""
    cost = make_spec().projector.cost
    seen = {(8, 8, 8): Evaluation(1.0, 0.9), (1, 1, 1): Evaluation(2.0, 0.1)}
    table = front(seen, cost, "params")
    assert table["counts"].tolist() == ["1 1 1", "8 8 8"]
    assert table["params_ratio"].iloc[-1] == 1.0
    assert table["accuracy"].tolist() == [0.1, 0.9]
