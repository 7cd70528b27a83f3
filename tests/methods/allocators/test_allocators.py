"""Every method keeps the rules, and those that search find the optimum where it is known."""

import importlib.util
import itertools

import numpy as np
import pytest
import torch
from rivalry import cheap, make_cache, make_problem, problem_of
from scipy.optimize import minimize
from torch import nn
from toys import macs

from rlprune import registry
from rlprune.cost.budget import parse_budget
from rlprune.errors import UserError
from rlprune.evaluation.metered import AllocationProblem
from rlprune.evaluation.sensitivity import measure
from rlprune.methods.allocators.evolution import CHILDREN, offspring
from rlprune.methods.allocators.sensitivity import sensitivity_rule
from rlprune.methods.allocators.uniform import uniform

SEARCHERS = ("random", "evolution", "cma-es", "amc")
SINGLE = (
    "uniform", "global-l1", "er", "erk", "erk-plus", "fisher-global", "histogram-valley", "pfp", "snip-ratio"
)  # fmt: skip
"""Rules that measure nothing but their plan."""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in {"rounds.WALKS": 16, "rounds.ROLLOUTS": 1, "engine.PICKS": 4}.items():
        monkeypatch.setattr(f"rlprune.agents.search.{name}", size)


def finished(method: str, evaluations: int, seed: int = 0, budget: str = "macs=0.5") -> AllocationProblem:
    problem = make_problem(method, cheap, evaluations, seed=seed, budget=budget, norms=method == "histogram-valley")
    registry.make("allocator", method).allocate(problem)
    return problem


@pytest.mark.parametrize("method", registry.names("allocator"))
@pytest.mark.parametrize("more", [0, 9])
def test_every_method_ends_with_a_plan_inside_the_budget_and_keeps_to_its_evaluations(method: str, more: int) -> None:
    least = registry.make("allocator", method).evaluations_needed(3, parse_budget("macs=0.5"))
    problem = finished(method, least + more)
    assert problem.best is not None
    assert macs(*problem.best) <= 76
    assert problem.result.loss == cheap(problem.best) == min(problem.curve.values())
    assert len(problem.seen) <= least + more
    if method in ("random", "evolution", "cma-es", "ppo"):
        assert len(problem.seen) == least + more
    if method in ("sensitivity", "additive-dp", *SINGLE):
        assert len(problem.seen) == least


def test_rules_meet_the_budget_and_leave_nothing_of_it(network: nn.Module) -> None:
    """On a residual sum, a concatenation, depthwise convolutions and a flatten."""
    images = torch.randn(4, 3, 32, 32)
    problem = problem_of(network, images[:1], "macs=0.6,params=0.4", batch=(images, torch.arange(4)))
    for method in SINGLE:
        if method != "histogram-valley":
            counts = registry.make("allocator", method).allocate(problem).counts
            assert problem.projector.fits(counts)
            grown = counts + np.eye(len(counts), dtype=int)[counts < problem.projector.sizes]
            assert not problem.projector.fits(grown).any(), method


def test_the_rules_are_those_of_the_allocators() -> None:
    projector = make_problem("any", cheap, 1).projector
    assert finished("uniform", 20).best == pytest.approx(uniform(projector))
    rule = projector.project(
        sensitivity_rule(measure(lambda plans: [cheap(plan) for plan in plans], projector), projector)[None]
    )[0]
    assert finished("sensitivity", 20).best == pytest.approx(rule)
    # 1 + 3 x 3 probes come first.
    assert list(finished("sensitivity", 20).curve) == [11]


@pytest.mark.parametrize("budget", ["macs=0.5", "macs=0.3"])
@pytest.mark.parametrize("method", ["sensitivity", "additive-dp"])
def test_measured_anew_around_the_plan_it_gets_nearer_to_the_optimum(method: str, budget: str) -> None:
    """Cutting two groups hurts more than the sum of both cuts, which no curve of the dense network shows."""

    def loss(counts: np.ndarray) -> float:
        logs = -np.log(counts / 16)
        return float(logs @ [0.1, 0.3, 0.4] + logs[0] * logs[1])

    gaps, seen = [], []
    for rounds in range(3):
        problem = make_problem(method, loss, 100, budget=budget, width=16)
        registry.make("allocator", f"{method}:rounds={rounds}").allocate(problem)
        assert problem.best is not None
        assert problem.projector.fits(problem.best)
        assert problem.result.loss == loss(problem.best) == min(problem.curve.values())
        plans = np.array(list(itertools.product(range(1, 17), repeat=3)))
        gaps.append(problem.result.loss - min(map(loss, plans[problem.projector.fits(plans)])))
        seen.append(len(problem.seen))
    assert gaps[0] > 1.5 * gaps[1] > 2 * gaps[2] >= 0
    # Four points of every group, and a plan, at most.
    assert seen[0] == 11 < seen[1] <= 24
    assert seen[1] < seen[2] <= 37
    short = make_problem(method, loss, seen[1] - 5, budget=budget, width=16)
    registry.make("allocator", f"{method}:rounds=1").allocate(short)
    assert len(short.seen) == 11


def test_the_rule_reads_smooth_curves_or_lines() -> None:
    """Whose plans differ where six groups of 32 have the room to; see the tests of the rule."""

    def loss(counts: np.ndarray) -> float:
        return float(-np.log(counts / 32) @ np.geomspace(0.1, 1, 6))

    plans = set()
    for method in ("sensitivity", "sensitivity:curves=lines", "sensitivity:curves=smooth"):
        problem = make_problem(method, loss, 20, groups=6, width=32, budget="macs=0.3")
        registry.make("allocator", method).allocate(problem)
        assert problem.best is not None
        plans.add(tuple(problem.best))
    assert len(plans) == 2
    with pytest.raises(UserError, match="unknown curves 'line': did you mean 'lines'"):
        registry.make("allocator", "sensitivity:curves=line")


@pytest.mark.parametrize("method", SEARCHERS)
def test_same_seed_same_plans(method: str) -> None:
    plans = [list(finished(method, 24, seed).seen) for seed in (3, 3, 4)]
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]


@pytest.mark.parametrize("method", ["random", "evolution", "cma-es"])
def test_all_of_few_plans_are_found_and_that_is_the_end(method: str) -> None:
    """At this bound only a handful of plans land, many fewer than may be measured."""
    problem = finished(method, 200, budget="macs=0.08")
    assert len(problem.seen) < 100
    feasible = [plan for plan in itertools.product(range(1, 9), repeat=3) if macs(*plan) <= 0.08 * 152]
    assert problem.result.loss == pytest.approx(min(cheap(np.array(plan)) for plan in feasible))


WIDTH, GROUPS = 256, 10
WISHES = np.log([0.2, 0.9, 0.4, 0.35, 0.3, 0.8, 0.5, 0.15, 0.6, 0.9])
WEIGHTS = np.array([1.0, 0.2, 2.0, 0.5, 1.0, 0.4, 1.5, 0.3, 0.7, 1.0])


def quadratic(counts: np.ndarray) -> float:
    return float(WEIGHTS @ (np.log(counts / WIDTH) - WISHES) ** 2)


def optimum(cap: float) -> float:
    """The lowest value inside the budget, by a solver that knows the formula and whose counts need not be whole."""

    def cost(logs: np.ndarray) -> float:
        kept = WIDTH * np.exp(logs)
        return float(kept[0] + kept[:-1] @ kept[1:] + 2 * kept[-1])

    dense = cost(np.zeros(GROUPS))
    solved = minimize(
        lambda logs: WEIGHTS @ (logs - WISHES) ** 2,
        WISHES - 0.5,
        constraints={"type": "ineq", "fun": lambda logs: cap - cost(logs) / dense},
        bounds=[(-5, 0)] * GROUPS,
    )
    assert solved.success
    return float(solved.fun)


def from_uniform(problem: AllocationProblem) -> np.ndarray:
    """In the place of the sensitivity rule, which this loss leads astray: its lowest value is not the dense network."""
    problem.begin()
    problem(start := uniform(problem.projector))
    return start.astype(float)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_separable_quadratic_over_log_ratios_is_descended(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What 250 evaluations leave of the distance to the optimum: a fifth at most, and a third by luck alone."""
    best, gaps = optimum(0.15), {}
    for method in ("random", "evolution", "cma-es"):
        if method != "random":
            monkeypatch.setattr(f"rlprune.methods.allocators.{method.replace('-', '_')}.base_plan", from_uniform)
        problem = make_problem(method, quadratic, 250, seed=seed, budget="macs=0.15", groups=GROUPS, width=WIDTH)
        registry.make("allocator", method).allocate(problem)
        start = problem.curve[1]
        gaps[method] = (problem.result.loss - best) / (start - best)
    assert 0 < gaps["evolution"] < 0.2
    assert 0 < gaps["cma-es"] < 0.2
    assert gaps["random"] > 1 / 3


def test_children_are_their_parents_genes_and_noise() -> None:
    rng = np.random.default_rng(0)
    genomes = np.repeat(np.array([[0.0], [100.0], [200.0]]), 40, axis=1)
    losses = np.array([1.0, 2.0, 3.0])
    children = offspring(genomes, losses, rng)
    assert children.shape == (CHILDREN, 40)
    nearest = np.round(children / 100)
    assert np.abs(children - 100 * nearest).max() < 3
    # About half of the genes are left alone.
    assert 0.35 < (children % 100 == 0).mean() < 0.65
    # In a tournament of three the best of three parents wins 1 - (2 / 3) ** 3 = 70 % of the time, the worst 4 %.
    shares = [(np.concatenate([offspring(genomes, losses, rng) for _ in range(40)]).round(-2) == value).mean()
              for value in (0, 100, 200)]  # fmt: skip
    assert shares == pytest.approx([19 / 27, 7 / 27, 1 / 27], abs=0.05)


def test_an_unknown_method() -> None:
    with pytest.raises(UserError, match="unknown allocator 'cmaes': did you mean 'cma-es'"):
        registry.make("allocator", "cmaes")


def test_a_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr("rlprune.registry.find_spec", lambda name: None if name == "cma" else real(name))
    with pytest.raises(UserError, match=r"cma-es needs the library cma: pip install 'rlprune\[compare\]'"):
        registry.make("allocator", "cma-es")
    registry.make("allocator", "evolution")


def test_numpys_own_random_numbers_are_left_alone() -> None:
    before = np.random.get_state()[1].tolist()  # type: ignore[index,union-attr]
    for method in ("random", "evolution", "cma-es"):
        finished(method, 20)
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index,union-attr]


def test_sensitivities_of_one_method_are_those_of_the_next() -> None:
    cache = make_cache(cheap)
    for method in ("sensitivity", "evolution"):
        registry.make("allocator", method).allocate(make_problem(method, cheap, 14, cache=cache))
    assert cache.evaluator.calls <= 11 + 14 - 10  # type: ignore[attr-defined]
