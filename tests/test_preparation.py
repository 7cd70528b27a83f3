"""The base plans of a search are the better ones of two kinds."""

from typing import Any

import numpy as np
import pytest

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
    """Every plan is as bad as any other but the uniform ones, which have losses of their own."""

    def __init__(self, problem: Problem, losses: dict[tuple[int, ...], float]) -> None:
        self.scores = score_channels("l1", problem.module, problem.graph, problem.calibration(), 0)
        self.losses, self.seen = losses, list[tuple[int, ...]]()

    def __call__(self, counts: np.ndarray) -> Evaluation:
        self.seen.append(tuple(counts.tolist()))
        return Evaluation(self.losses.get(self.seen[-1], 1.0), 0.5)


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
    for task, plan, rule, loss in zip(prepared.tasks, plans, prepared.rules, losses, strict=True):
        assert task.base_plan().tolist() == (plan if even else rule).tolist()
        assert task.base_value == pytest.approx(-loss if even else -1.0)
        assert rule.tolist() != plan.tolist()


def test_where_the_agent_balances_there_is_only_the_rule(problem: Problem) -> None:
    lander = Lander(problem.cost, parse_budget(0.5))
    evaluator: Any = Measuring(problem, {tuple(uniform(lander).tolist()): 0.1})
    prepared = prepare(problem, [lander], evaluator, np.array([1.0, 0.0]), True)
    assert not prepared.even
    assert tuple(uniform(lander).tolist()) not in evaluator.seen
