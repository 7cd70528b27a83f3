"""From a dense network to a task: criterion, sensitivities, base plan, observations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlprune.activity import channel_activity
from rlprune.allocators.sensitivity import Sensitivity, allocate, measure
from rlprune.allocators.uniform import uniform
from rlprune.budget import Budget, Lander
from rlprune.criteria import score_channels
from rlprune.envs.observation import build_features
from rlprune.envs.walk import Task
from rlprune.evaluator import Evaluation, Evaluator
from rlprune.problem import Problem


@dataclass(frozen=True)
class Prepared:
    """What a search or a replay starts from.

    Attributes:
        tasks: what is walked and what counts, one a budget.
        starts: for every task the (groups,) landed counts of the base plans that were measured, the sensitivity
            rule's first; the best kind of them is the task's.
        sensitivity: the measured curves.
        even: the base plans are the uniform ones.
    """

    tasks: list[Task]
    starts: list[list[np.ndarray]]
    sensitivity: Sensitivity
    even: bool


def make_evaluator(
    problem: Problem,
    criterion: str,
    seed: int,
    seen: dict[tuple[int, ...], Evaluation] | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Evaluator:
    """The evaluator of a problem: slices by a criterion, scored on the search split; `tell` as for the runner."""
    scores = score_channels(criterion, problem.module, problem.graph, problem.calibration(), seed)
    return Evaluator(problem.runner(tell), scores, *problem.search(), seen)


def prepare(
    problem: Problem,
    landers: Sequence[Lander],
    evaluator: Evaluator,
    weights: np.ndarray,
    balance: bool,
    begin: Callable[[Task], None] = lambda task: None,
) -> Prepared:
    """Measure the sensitivities and lay down the base plans.

    They are those of the sensitivity rule, or of another kind that is better over all budgets, see `base_wishes`: the
    rule adds up what groups lose one by one, which foretells little where much has to go.

    Args:
        problem: network and images.
        landers: budgets and cost.
        evaluator: scores plans.
        weights, balance: the reward; see `rlprune.envs.reward`.
        begin: told of a task before its base plan, the first that counts, is measured.
    """
    sensitivity = measure(lambda counts: evaluator(counts).loss, landers[0])
    activity = channel_activity(problem.module, problem.graph, problem.calibration()[0])

    def value(task: Task) -> float:
        plan = task.base_plan()
        return float(task.value(plan[None], np.array([evaluator(plan).loss]))[0])

    tasks: list[list[Task]] = []
    for lander in landers:
        facts = (problem, lander, evaluator.scores, activity, sensitivity, weights, balance)
        wishes = base_wishes(sensitivity, lander, weights if balance else None)
        tasks.append([lay_out(*facts, wished) for wished in wishes])
        begin(tasks[-1][0])
        tasks[-1] = [replace(task, base_value=value(task)) for task in tasks[-1]]
    best = int(np.argmax(np.mean([[task.base_value for task in kinds] for kinds in tasks], axis=0)))
    starts = [[task.base_plan() for task in kinds] for kinds in tasks]
    return Prepared([kinds[best] for kinds in tasks], starts, sensitivity, even=best == 1)


def base_wishes(sensitivity: Sensitivity, lander: Lander, weights: np.ndarray | None = None) -> list[np.ndarray]:
    """Base plans of every kind, (groups,) kept counts as floats: the sensitivity rule's, then the uniform one.

    For a bound on the latency there is also the rule with channels priced in MACs: layers bound by memory are slow for
    their MACs, so that the rule all but closes them.

    Args:
        sensitivity: measured or borrowed curves.
        lander: budget and cost.
        weights: where the agent itself decides how much goes; see `rlprune.allocators.sensitivity.allocate`. Then
            there is no budget to meet and the rule's plan is the only one.
    """
    if weights is not None:
        return [allocate(sensitivity, lander, weights)]
    wishes = [allocate(sensitivity, lander), uniform(lander).astype(float)]
    return [*wishes, allocate(sensitivity, lander, price="macs")] if lander.budget.timed else wishes


def number_of_kinds(budget: Budget) -> int:
    """How many base plans `base_wishes` has."""
    return 3 if budget.timed else 2


def lay_out(
    problem: Problem,
    lander: Lander,
    scores: np.ndarray,
    activity: tuple[np.ndarray, np.ndarray],
    sensitivity: Sensitivity,
    weights: np.ndarray,
    balance: bool,
    wished: np.ndarray,
    reach: float = 1.0,
) -> Task:
    """A task whose base plan is not valued yet; takes no evaluation.

    Args:
        problem: network and images.
        lander: budget and cost.
        scores: (all groups' channels,) of the criterion.
        activity: of all channels; see `rlprune.activity`.
        sensitivity: measured or borrowed curves.
        weights, balance: the reward; see `rlprune.envs.reward`.
        wished: (groups,) counts of the base plan, not landed.
        reach: of an action; see `rlprune.envs.walk.Task`.
    """
    facts = (problem.graph, problem.cost, scores, activity, sensitivity, wished)
    features = build_features(*facts, lander.cost.resources)
    return Task(lander, features, wished, 0.0, weights, balance, reach)
