"""The dynamic programme against all plans of small networks, and against numbers by hand."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rivalry import cheap, make_problem, make_workload
from torch import nn

from rlprune import registry
from rlprune.cost.budget import parse_budget
from rlprune.cost.exact import Cost, build_cost
from rlprune.cost.projection import BudgetProjector
from rlprune.evaluation.curves import smooth_curve
from rlprune.evaluation.sensitivity import Sensitivity
from rlprune.latency.model import LatencyModel, with_latency
from rlprune.methods.allocators.additive_dp import additive_optimum, undominated
from rlprune.tracing.build import build_graph


def drawn_curves(cost: Cost, seed: int, round_to: int = 1) -> Sensitivity:
    """Curves of any shape, also such as fall, down to the least count."""
    rng, projector = np.random.default_rng(seed), BudgetProjector(cost, parse_budget(None), round_to)
    counts = np.array([projector.quantise(cost.sizes * ratio) for ratio in (1, 0.5, 0.25, 1e-9)]).T
    rises = rng.gamma(0.5, 1, (len(counts), 3)).cumsum(axis=1) + rng.normal(0, 0.1, (len(counts), 3))
    # One cut has one loss.
    for mine, row in zip(counts, rises, strict=True):
        row[:] = [row[list(mine[1:]).index(count)] * (count < mine[0]) for count in mine[1:]]
    return Sensitivity(counts / cost.sizes[:, None], np.column_stack([np.zeros(len(counts)), rises]))


def predicted(sensitivity: Sensitivity, plans: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return sum(smooth_curve(sensitivity, group, plans[:, group] / sizes[group]) for group in range(len(sizes)))  # type: ignore[return-value]


def gap(sensitivity: Sensitivity, projector: BudgetProjector) -> float:
    """How much worse the plan that is found is than the best of all plans inside the budget."""
    found = additive_optimum(sensitivity, projector)
    assert projector.fits(found)
    plans = np.array(list(itertools.product(*map(projector.allowed, range(len(projector.sizes))))))
    assert (found == plans).all(axis=1).any()
    plans = plans[projector.fits(plans)]
    best = predicted(sensitivity, plans, projector.sizes).min()
    return float(predicted(sensitivity, found[None], projector.sizes)[0] - best)


@st.composite
def separate(draw: st.DrawFn) -> Cost:
    """Two to four groups of four to nine channels whose costs add up."""
    sizes = np.array(draw(st.lists(st.integers(4, 9), min_size=2, max_size=4)))
    prices = st.floats(0.1, 10)
    weights = np.array([[draw(prices), draw(prices)] for _ in sizes])
    groups = len(sizes)
    alone = np.vstack([np.eye(groups), np.zeros(groups)])
    places = np.arange(groups), np.full(groups, groups)
    whole, widths = np.array([*[0] * groups, 1.0]), np.ones(groups, dtype=int)
    return Cost(whole, alone, *places, weights, sizes @ weights, sizes, widths)


@given(
    separate(), st.floats(0.25, 1), st.floats(0.25, 1), st.sampled_from(["macs", "params", "both"]), st.integers(0, 99)
)
@settings(max_examples=60, deadline=None)
def test_it_is_the_exact_optimum_where_costs_add_up(
    cost: Cost, macs: float, params: float, what: str, seed: int
) -> None:
    bounds = {"macs": macs, "params": params}
    budget = parse_budget({name: bound for name, bound in bounds.items() if what in (name, "both")})
    assert gap(drawn_curves(cost, seed), BudgetProjector(cost, budget)) == pytest.approx(0, abs=1e-9)


def residual() -> Cost:
    """A stem of 6 channels that a block of 8 adds to, then 5 channels and a classifier: MACs a² and a b in one sum."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.end, self.head = nn.Conv2d(1, 6, 1), nn.Conv2d(6, 5, 1), nn.Linear(5, 2)
            self.square, self.inner, self.outer = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 8, 1), nn.Conv2d(8, 6, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            stem = self.stem(images)
            stem = stem + self.square(stem) + self.outer(self.inner(stem).relu())
            return self.head(self.end(stem).mean((2, 3)))  # type: ignore[no-any-return]

    return build_cost(build_graph(Net(), torch.zeros(1, 1, 1, 1)))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("budget", ["macs=0.15", "macs=0.3", "macs=0.6", "params=0.4", "macs=0.4,params=0.35"])
@pytest.mark.parametrize("network", ["chain", "wide", "residual"])
def test_it_is_the_optimum_of_small_networks(network: str, budget: str, seed: int) -> None:
    """Where MACs multiply nothing guarantees it, and still it holds in all of these."""
    cost = {"chain": make_workload(4, 6).cost, "wide": make_workload(3, 12).cost, "residual": residual()}[network]
    assert gap(drawn_curves(cost, seed), BudgetProjector(cost, parse_budget(budget))) == pytest.approx(0, abs=1e-9)


def test_multiples_and_the_whole_group() -> None:
    """Groups of 12 keep 4, 8 or 12."""
    cost = make_workload(4, 12).cost
    for seed in range(4):
        projector = BudgetProjector(cost, parse_budget(0.4), round_to=4)
        assert gap(drawn_curves(cost, seed, round_to=4), projector) == pytest.approx(0, abs=1e-9)


def test_a_bound_on_the_latency() -> None:
    """Milliseconds are 1 + parameters, so that the optimum is that of a bound on these."""
    cost = make_workload(3, 8).cost
    axes, layers = cost.per_channel, 0
    nothing = np.zeros((2, layers, 5)), np.zeros((layers, 5, 5)), np.zeros(len(axes))
    places = np.zeros(layers, dtype=int)
    latency = LatencyModel(cost.whole, axes, places, places, *nothing, np.array([0, 0, 1e6, 1.0]))
    timed = with_latency(cost, latency, float(latency(cost.sizes, cost.dense[1])))
    projector = BudgetProjector(timed, parse_budget("latency=0.4"))
    for seed in range(4):
        assert gap(drawn_curves(cost, seed), projector) == pytest.approx(0, abs=1e-9)
        caps = 0.4 * (cost.dense[1] + 1) - 1
        alike = BudgetProjector(cost, parse_budget({"params": caps / cost.dense[1]}))
        assert (
            additive_optimum(drawn_curves(cost, seed), alike) == additive_optimum(drawn_curves(cost, seed), projector)
        ).all()


def test_it_stays_where_the_curves_are_known() -> None:
    """The last group's cuts are free down to a half, the lowest that was measured; a tight budget leaves no choice."""
    cost = make_workload(3, 8).cost
    ratios = np.array([[1, 0.5, 0.125], [1, 0.5, 0.125], [1, 0.75, 0.5]])
    curves = Sensitivity(ratios, np.array([[0, 0.5, 1], [0, 0.5, 1], [0, 0, 0]]))
    assert additive_optimum(curves, BudgetProjector(cost, parse_budget(0.3)))[2] >= 4
    assert additive_optimum(curves, BudgetProjector(cost, parse_budget(0.06)))[2] < 4


@pytest.mark.parametrize("resources", [0, 1, 2, 3])
def test_states_that_are_dropped(resources: int) -> None:
    """Against the definition, with many ties."""
    rng = np.random.default_rng(0)
    damage, usage = rng.integers(0, 9, 600).astype(float), 1.0 + rng.integers(0, 9, (600, resources))
    points = {(d, *u) for d, u in zip(damage, usage.tolist(), strict=True)}
    best = {p for p in points if not any(q != p and all(a <= b for a, b in zip(q, p, strict=True)) for q in points)}
    kept = undominated(damage, usage)
    assert sorted((damage[k], *usage[k].tolist()) for k in kept) == sorted(best)


def test_what_it_costs() -> None:
    """10 for the sensitivities and one for the plan, as for the rule."""
    method = registry.make("allocator", "additive-dp")
    assert method.evaluations_needed(3, parse_budget(0.5)) == 11
    problem = make_problem("additive-dp", cheap, 40)
    method.allocate(problem)
    assert len(problem.seen) == 11
    assert list(problem.curve) == [11]
