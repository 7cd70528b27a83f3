"""Overhead under a budget, on networks whose time is a straight line."""

import numpy as np
import pytest
from costs import DENSE, chain, timed

from rlprune.cost.budget import parse_budget
from rlprune.cost.projection import BudgetProjector
from rlprune.latency.backends import Backend
from rlprune.latency.overhead import EXACT, Line, Overhead, find_overhead, overhead_words, what_helps


def projector_of(budget: str, overhead: float) -> BudgetProjector:
    """A chain whose MACs are its parameters, and whose time is overhead and, in proportion to them, the rest."""
    cost = timed(chain([60, 80, 70], [1, 1, 1]), 1 - overhead)
    weights = cost.latency.weights + np.array([0, 0, 0, overhead * DENSE])
    constant = type(cost.latency)(**vars(cost.latency) | {"weights": weights})
    cost = type(cost)(**vars(cost) | {"latency": constant})
    assert cost.ratios(cost.sizes)[-1] == pytest.approx(1)
    return BudgetProjector(cost, parse_budget(budget).against(DENSE))


def test_a_network_that_only_waits() -> None:
    """(0.6 - 0.59) / 0.41 of the MACs are left."""
    found = find_overhead(projector_of("latency=0.6", 0.59))
    assert found is not None
    assert found.least == pytest.approx(0.59, abs=0.001)
    assert found.allowed == 0.6
    assert found.kept == pytest.approx(0.01 / 0.41, abs=0.002)


@pytest.mark.parametrize(
    ("budget", "overhead"),
    [
        # (0.6 - 0.4) / 0.6 = a third of the MACs.
        ("latency=0.6", 0.4),
        # Two thirds of the time are overhead, but a quarter of the MACs in proportion to it is what remains.
        ("latency=0.6", 0.52),
        ("latency=0.05", 0.0),
        ("macs=0.01", 0.59),
    ],
)
def test_a_network_that_computes(budget: str, overhead: float) -> None:
    assert find_overhead(projector_of(budget, overhead)) is None


def test_few_macs_by_another_bound_are_no_overhead() -> None:
    assert find_overhead(projector_of("macs=0.02,latency=0.6", 0.3)) is None


def test_a_line_through_measurements_counts() -> None:
    """The model knows no overhead, the measurements do."""
    projector = projector_of("latency=0.6", 0.0)
    assert find_overhead(projector, EXACT) is None
    found = find_overhead(projector, Line(0.59, 0.41))
    assert found is not None
    assert found.kept == pytest.approx(0.01 / 0.41, abs=0.002)
    # Even the smallest plan takes more: it is what is named.
    out_of_reach = find_overhead(projector, Line(0.7, 0.3))
    assert out_of_reach is not None
    assert out_of_reach.kept == pytest.approx(projector.cost.ratios(projector.minimum)[0])


def test_the_words_name_what_to_ask_for() -> None:
    """30 % of the MACs, half of the share of the time, take 0.59 + 0.41 * 0.3 = 71.3 % of the time."""
    projector = projector_of("latency=0.6", 0.59)
    assert overhead_words(Overhead(0.5904, 0.6, 0.0234), projector, Backend("torch", 1, 2, "cpu")) == (
        "overhead bounds latency=0.6: with the fewest channels the network still takes 59 % of the dense one's time, "
        "of 60 % allowed, so that even ratios keep 2.3 % of the MACs; what helps: latency=0.72, which keeps about "
        "30 %, more images at once than 1 (--batch), another backend than torch (--backend), a network with fewer "
        "layers, a budget of MACs such as macs=0.3"
    )
    # Channels are whole, so that it is 29.7 %, and 71.2 % of 20 ms.
    assert "what helps: latency=14.2ms, which keeps about 30 %" in what_helps(
        projector, parse_budget("latency=12ms").against(DENSE), Backend()
    )


def test_no_latency_is_named_where_none_would_do() -> None:
    """Whatever is kept, the network takes 96 % of its time and more."""
    projector = projector_of("latency=0.6", 0.0)
    helps = what_helps(projector, projector.budget, Backend(), Line(0.96, 0.04))
    assert helps.startswith("what helps: more images at once than 1 (--batch), ")


def test_what_nobody_has_asked_for_yet_is_named_first() -> None:
    projector = projector_of("latency=0.6", 0.0)
    helps = what_helps(projector, projector.budget, Backend(), Line(0.96, 0.04), ("fewer blocks",))
    assert helps.startswith("what helps: fewer blocks, more images at once than 1 (--batch), ")
