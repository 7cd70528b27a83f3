"""The base plans of a search are the better ones of two kinds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from costs import timed

from rlprune.agents.search.setup import prepare
from rlprune.cost.budget import parse_budget
from rlprune.cost.projection import BudgetProjector
from rlprune.methods.allocators.uniform import uniform
from rlprune.methods.criteria.base import score_channels
from rlprune.tasks.base import Evaluation
from rlprune.utils.progress import Progress
from rlprune.workloads.workload import Workload, open_workload


@pytest.fixture(scope="module")
def workload() -> Workload:
    settings = {"model": "resnet20", "model_args": "width=0.25", "data": "digits", "device": "cpu"}
    return open_workload(settings, Progress())


class Measuring:
    """Every plan is as bad as any other but some, with losses of their own; `slope` more for every whole group."""

    def __init__(self, workload: Workload, losses: dict[tuple[int, ...], float], slope: float = 0.0) -> None:
        self.scores = score_channels("l1", workload.module, workload.graph, workload.calibration(), 0)
        self.losses, self.slope, self.seen = losses, slope, list[tuple[int, ...]]()
        self.sizes = workload.cost.sizes

    def __call__(self, counts: np.ndarray) -> Evaluation:
        self.seen.append(tuple(counts.tolist()))
        loss = 1.0 + self.slope * float((1 - counts / self.sizes).sum())
        return Evaluation(self.losses.get(self.seen[-1], loss), 0.5)

    def evaluate(self, plans: Sequence[np.ndarray]) -> list[Evaluation]:
        return [self(counts) for counts in plans]


@pytest.mark.parametrize(
    ("losses", "even"), [((0.9, 0.9), True), ((1.1, 1.1), False), ((0.5, 1.2), True), ((0.9, 1.2), False)]
)
def test_the_better_kind_over_all_budgets(workload: Workload, losses: tuple[float, float], even: bool) -> None:
    projectors = [BudgetProjector(workload.cost, parse_budget(budget)) for budget in (0.3, 0.6)]
    plans = [uniform(projector) for projector in projectors]
    evaluator: Any = Measuring(workload, {tuple(plan.tolist()): loss for plan, loss in zip(plans, losses, strict=True)})
    told: list[Any] = []
    prepared = prepare(workload, projectors, evaluator, np.zeros(2), False, told.append)
    assert prepared.base == ("uniform" if even else "rule")
    assert len(told) == 2
    for spec, plan, (rule, other), loss in zip(prepared.specs, plans, prepared.starts, losses, strict=True):
        assert other.tolist() == plan.tolist()
        assert spec.base_plan().tolist() == (plan if even else rule).tolist()
        assert spec.base_value == pytest.approx(-loss if even else -1.0)
        assert rule.tolist() != plan.tolist()


def test_under_a_latency_the_rule_is_also_priced_in_macs(workload: Workload) -> None:
    """Here latency is the share of the parameters, which the wide layers have; all layers have about as many MACs."""
    projector = BudgetProjector(timed(workload.cost), parse_budget("latency=0.4"))
    evaluator: Any = Measuring(workload, {}, slope=0.1)
    rule, even, priced = prepare(workload, [projector], evaluator, np.zeros(2), False).starts[0]
    assert [tuple(plan.tolist()) for plan in (rule, even, priced)] == evaluator.seen[-3:]
    macs, _, latency = projector.cost.ratios(np.array([rule, priced])).T
    assert (latency <= 0.4).all()
    assert macs[1] < macs[0]
    evaluator = Measuring(workload, {tuple(priced.tolist()): 0.5}, slope=0.1)
    prepared = prepare(workload, [projector], evaluator, np.zeros(2), False)
    assert (prepared.specs[0].base_plan() == priced).all()
    assert prepared.base == "rule priced in MACs"


def test_where_the_agent_balances_there_is_only_the_rule(workload: Workload) -> None:
    projector = BudgetProjector(workload.cost, parse_budget(0.5))
    evaluator: Any = Measuring(workload, {tuple(uniform(projector).tolist()): 0.1})
    prepared = prepare(workload, [projector], evaluator, np.array([1.0, 0.0]), True)
    assert prepared.base == "rule"
    assert tuple(uniform(projector).tolist()) not in evaluator.seen
