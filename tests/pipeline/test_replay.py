"""A replay starts from the kind of base plan that won the search."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from costs import timed

from rlprune.agents import policy as policies
from rlprune.agents.search.setup import prepare
from rlprune.agents.transfer import SourceNetwork
from rlprune.cost.budget import parse_budget
from rlprune.cost.projection import BudgetProjector
from rlprune.methods.criteria.base import score_channels
from rlprune.pipeline import replay as module
from rlprune.tasks.base import Evaluation
from rlprune.utils.progress import Progress
from rlprune.workloads.workload import Workload, open_workload

THERE: Any = SimpleNamespace(reward="loss", decisions=["channels"])
POLICY: Any = SimpleNamespace(reach=1.0)


@pytest.fixture(scope="module")
def workload() -> Workload:
    settings = {"model": "resnet20", "model_args": "width=0.25", "data": "digits", "device": "cpu"}
    return open_workload(settings, Progress())


class Favouring:
    """Every group costs 0.1 of loss, so that uniform plans and rules differ, and one plan is better than all."""

    def __init__(self, workload: Workload) -> None:
        self.scores = score_channels("l1", workload.module, workload.graph, workload.calibration(), 0)
        self.sizes, self.best = workload.cost.sizes, None

    def __call__(self, counts: np.ndarray) -> Evaluation:
        found = 0.5 if counts.tolist() == self.best else 1.0 + 0.1 * float((1 - counts / self.sizes).sum())
        return Evaluation(found, 0.5)

    def evaluate(self, plans: Any) -> list[Evaluation]:
        return [self(counts) for counts in plans]


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_the_kind_of_base_plan_that_won_is_walked_from(workload: Workload, kind: int) -> None:
    """Through the file, on the same network: the very plan that the search had measured as the best to start from."""
    projector, evaluator = BudgetProjector(timed(workload.cost), parse_budget("latency=0.4")), Favouring(workload)
    measuring: Any = evaluator
    starts = prepare(workload, [projector], measuring, np.zeros(2), False).starts[0]
    assert len({tuple(plan.tolist()) for plan in starts}) == 3
    evaluator.best = starts[kind].tolist()
    trained = policies._source(workload, prepare(workload, [projector], measuring, np.zeros(2), False))
    again = SourceNetwork.from_json(trained.as_json(), trained.names)
    spec = module._spec(workload, POLICY, again, measuring, projector, THERE)
    assert spec.base_plan().tolist() == starts[kind].tolist()


def test_a_kind_that_the_new_budget_does_not_have_gives_the_rule(workload: Workload) -> None:
    """Under a bound on the MACs the rule is priced in MACs in any case."""
    evaluator: Any = Favouring(workload)
    there = BudgetProjector(timed(workload.cost), parse_budget("latency=0.4"))
    evaluator.best = prepare(workload, [there], evaluator, np.zeros(2), False).starts[0][2].tolist()
    trained = policies._source(workload, prepare(workload, [there], evaluator, np.zeros(2), False))
    projector = BudgetProjector(workload.cost, parse_budget("macs=0.4"))
    rule, even = prepare(workload, [projector], evaluator, np.zeros(2), False).starts[0]
    spec = module._spec(workload, POLICY, trained, evaluator, projector, THERE)
    assert spec.base_plan().tolist() == rule.tolist() != even.tolist()
