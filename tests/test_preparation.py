"""The base plans of a search are the better ones of two kinds."""

from typing import Any

import numpy as np
import pytest
from test_landing import timed

from rlprune.agents.preparation import prepare
from rlprune.allocators.uniform import uniform
from rlprune.budget import Lander, parse_budget
from rlprune.criteria import score_channels
from rlprune.evaluator import Evaluation
from rlprune.problem import Problem, open_problem
from rlprune.progress import Progress


@pytest.fixture(scope="module")
def problem() -> Problem:
    settings = {"model": "resnet20", "model_args": "width=0.25", "data": "digits", "device": "cpu"}
    return open_problem(settings, Progress())


class Measuring:
    """Every plan is as bad as any other but some, with losses of their own; `slope` more for every whole group."""

    def __init__(self, problem: Problem, losses: dict[tuple[int, ...], float], slope: float = 0.0) -> None:
        self.scores = score_channels("l1", problem.module, problem.graph, problem.calibration(), 0)
        self.losses, self.slope, self.seen = losses, slope, list[tuple[int, ...]]()
        self.sizes = problem.cost.sizes

    def __call__(self, counts: np.ndarray) -> Evaluation:
        self.seen.append(tuple(counts.tolist()))
        loss = 1.0 + self.slope * float((1 - counts / self.sizes).sum())
        return Evaluation(self.losses.get(self.seen[-1], loss), 0.5)


@pytest.mark.parametrize(
    ("losses", "even"), [((0.9, 0.9), True), ((1.1, 1.1), False), ((0.5, 1.2), True), ((0.9, 1.2), False)]
)
def test_the_better_kind_over_all_budgets(problem: Problem, losses: tuple[float, float], even: bool) -> None:
    landers = [Lander(problem.cost, parse_budget(budget)) for budget in (0.3, 0.6)]
    plans = [uniform(lander) for lander in landers]
    evaluator: Any = Measuring(problem, {tuple(plan.tolist()): loss for plan, loss in zip(plans, losses, strict=True)})
    told: list[Any] = []
    prepared = prepare(problem, landers, evaluator, np.zeros(2), False, told.append)
    assert prepared.even == even
    assert len(told) == 2
    for task, plan, (rule, other), loss in zip(prepared.tasks, plans, prepared.starts, losses, strict=True):
        assert other.tolist() == plan.tolist()
        assert task.base_plan().tolist() == (plan if even else rule).tolist()
        assert task.base_value == pytest.approx(-loss if even else -1.0)
        assert rule.tolist() != plan.tolist()


def test_under_a_latency_the_rule_is_also_priced_in_macs(problem: Problem) -> None:
    """Here latency is the share of the parameters, which the wide layers have; all layers have about as many MACs."""
    lander = Lander(timed(problem.cost), parse_budget("latency=0.4"))
    evaluator: Any = Measuring(problem, {}, slope=0.1)
    rule, even, priced = prepare(problem, [lander], evaluator, np.zeros(2), False).starts[0]
    assert [tuple(plan.tolist()) for plan in (rule, even, priced)] == evaluator.seen[-3:]
    macs, _, latency = lander.cost.ratios(np.array([rule, priced])).T
    assert (latency <= 0.4).all()
    assert macs[1] < macs[0]
    evaluator = Measuring(problem, {tuple(priced.tolist()): 0.5}, slope=0.1)
    prepared = prepare(problem, [lander], evaluator, np.zeros(2), False)
    assert (prepared.tasks[0].base_plan() == priced).all()
    assert not prepared.even


def test_where_the_agent_balances_there_is_only_the_rule(problem: Problem) -> None:
    lander = Lander(problem.cost, parse_budget(0.5))
    evaluator: Any = Measuring(problem, {tuple(uniform(lander).tolist()): 0.1})
    prepared = prepare(problem, [lander], evaluator, np.array([1.0, 0.0]), True)
    assert not prepared.even
    assert tuple(uniform(lander).tolist()) not in evaluator.seen
