"""Budgets with what is measured for them; no clock is asked."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from costs import DENSE, chain, timed

from rlprune.config.commands import Compare, Prune, Search
from rlprune.cost.budget import Budget, parse_budget
from rlprune.cost.projection import BudgetProjector
from rlprune.errors import UserError
from rlprune.latency.backends import Backend
from rlprune.pipeline.measured_budget import MeasuredBudget, _helps
from rlprune.utils.progress import Progress


def test_without_a_latency_nothing_is_measured() -> None:
    cost = chain([6, 8], [1, 1])
    measured_budget = MeasuredBudget([BudgetProjector(cost, parse_budget(0.5))], Backend(), {})
    counts = np.array([3, 4])
    assert measured_budget.settle(counts, None) is counts  # type: ignore[arg-type]
    assert measured_budget.result() == {}


def test_the_least_is_said_in_milliseconds() -> None:
    cost = timed(chain([6, 8], [1, 1]))
    with pytest.raises(UserError, match=r"the smallest possible is latency=0\.0732 \(1\.46 ms\)$"):
        BudgetProjector(cost, Budget({"latency": 0.01}))


def test_what_is_not_measured_is_refused() -> None:
    cost = chain([6, 8], [1, 1])
    for budget, round_to in ((parse_budget("latency=0.5"), 1), (parse_budget("latency=8ms"), 1)):
        with pytest.raises(UserError, match="asks for a measurement"):
            BudgetProjector(cost, budget, round_to)
    with pytest.raises(UserError, match="round_to=auto asks for a measurement"):
        BudgetProjector(cost, parse_budget(0.5), "auto")


class Notes(Progress):
    """Keeps what should stay readable."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def measured_on(machine: Any, budget: str, monkeypatch: pytest.MonkeyPatch) -> MeasuredBudget:
    """A budget on a machine that takes a share of the dense network's time for the model's share of a plan."""
    cost = timed(chain([60, 80, 70], [1, 1, 1]))

    def measure(self: MeasuredBudget, counts: np.ndarray) -> dict[str, Any]:
        return {"dense_ms": DENSE, "pruned_ms": DENSE * machine(float(cost.ratios(counts)[-1])), "noise": ""}

    monkeypatch.setattr(MeasuredBudget, "_measure", measure)
    return MeasuredBudget([BudgetProjector(cost, parse_budget(budget))], Backend(), {})


def test_overhead_that_only_measuring_shows_is_told_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """57 % of the time whatever is kept: 60 % leaves 7 % of the parameters, which are the MACs here."""
    budget, notes = measured_on(lambda share: 0.57 + 0.43 * share, "latency=0.6", monkeypatch), Notes()
    budget.warn(notes)
    assert not notes.notes
    counts = budget.settle(budget.projectors[0].sizes // 2, notes)
    assert budget.projectors[0].cost.ratios(counts)[0] < 0.15
    warning, *others = budget.result()["latency"]["warnings"]
    assert not others
    assert warning.startswith("overhead bounds latency=0.6: with the fewest channels the network still takes 57 %")
    # 0.57 + 0.43 * 0.3
    assert "latency=0.70, which keeps about 30 %" in warning
    assert notes.notes[-1] == warning


def test_a_budget_that_is_met_warns_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    budget, notes = measured_on(lambda share: 0.1 + 0.9 * share, "latency=0.6", monkeypatch), Notes()
    budget.settle(budget.projectors[0].sizes // 2, notes)
    assert budget.result()["latency"]["warnings"] == []


@pytest.mark.parametrize(
    ("given", "blocks", "told"),
    [
        (Search(model="resnet20", budget=0.3), 7, True),
        (Compare(model="resnet20", budget=0.3), 7, True),
        (Search(model="resnet20", budget=0.3, decide="channels,blocks"), 7, False),
        (Search(model="vgg16", budget=0.3), 0, False),
        (Prune(model="resnet20", plan=Path("plan.json")), 7, False),
    ],
)
def test_blocks_are_named_where_they_may_go_and_nobody_has_asked(given: Any, blocks: int, told: bool) -> None:
    workload: Any = SimpleNamespace(graph=SimpleNamespace(blocks=(None,) * blocks))
    assert any("--decide channels,blocks" in words for words in _helps(given, workload)) == told
