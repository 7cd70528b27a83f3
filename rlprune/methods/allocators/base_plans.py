"""The plans that a search starts from: of the sensitivity rule, uniform, priced in MACs."""

import numpy as np

from rlprune.cost.budget import Budget
from rlprune.cost.projection import BudgetProjector
from rlprune.evaluation.metered import AllocationProblem
from rlprune.evaluation.sensitivity import Sensitivity, number_of_evaluations
from rlprune.methods.allocators.sensitivity import measure_probes, sensitivity_rule
from rlprune.methods.allocators.uniform import uniform

KINDS = ("rule", "uniform", "rule priced in MACs")
"""What the base plans of `base_wishes` are called, in its order; policies on disk hold these names."""


def base_plan(problem: AllocationProblem) -> np.ndarray:
    """Measure the sensitivities and the base plans of every kind; a search starts around the best of them.

    Returns:
        (groups,) its counts as floats, near the budget.
    """
    wishes = base_wishes(measure_probes(problem), problem.projector)
    losses = problem.measure(problem.projector.project(np.array(wishes)))
    return wishes[int(np.argmin(losses))]


def base_wishes(
    sensitivity: Sensitivity, projector: BudgetProjector, weights: np.ndarray | None = None
) -> list[np.ndarray]:
    """Base plans of every kind, (groups,) kept counts as floats: the sensitivity rule's, then the uniform one.

    For a bound on the latency there is also the rule with channels priced in MACs: layers bound by memory are slow for
    their MACs, so that the rule all but closes them.

    Args:
        sensitivity: measured or borrowed curves.
        projector: budget and cost.
        weights: where the agent itself decides how much goes; see
            `rlprune.methods.allocators.sensitivity.sensitivity_rule`. Then there is no budget to meet and the rule's
            plan is the only one.
    """
    if weights is not None:
        return [sensitivity_rule(sensitivity, projector, weights)]
    wishes = [sensitivity_rule(sensitivity, projector), uniform(projector).astype(float)]
    return [*wishes, sensitivity_rule(sensitivity, projector, price="macs")] if projector.budget.timed else wishes


def wish_of(kind: str, wishes: list[np.ndarray]) -> np.ndarray:
    """The base plan of a kind; the rule's where the budget has none of that kind.

    Args:
        kind: one of `KINDS`.
        wishes: of `base_wishes`.
    """
    place = KINDS.index(kind)
    return wishes[place if place < len(wishes) else 0]


def number_of_kinds(budget: Budget) -> int:
    """How many base plans `base_wishes` has."""
    return 3 if budget.timed else 2


def evaluations_before_search(groups: int, budget: Budget) -> int:
    """How many evaluations the sensitivities and the base plans take at most."""
    return number_of_evaluations(groups) + number_of_kinds(budget)
