"""From a dense network to a task: criterion, sensitivities, base plan, observations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlprune.activity import channel_activity
from rlprune.allocators.sensitivity import Sensitivity, allocate, measure
from rlprune.allocators.uniform import uniform
from rlprune.budget import Lander
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
        rules: for every task the (groups,) landed counts of the sensitivity rule.
        sensitivity: the measured curves.
        even: the base plans are the uniform ones, and not those of the rule.
    """

    tasks: list[Task]
    rules: list[np.ndarray]
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

    They are those of the sensitivity rule, or the uniform ones where these are better over all budgets: the rule adds
    up what groups lose one by one, which foretells little where much has to go.

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
        # Where the agent itself decides how much goes, there is no budget for a uniform plan to meet.
        tasks.append([lay_out(*facts, even) for even in ((False,) if balance else (False, True))])
        begin(tasks[-1][0])
        tasks[-1] = [replace(task, base_value=value(task)) for task in tasks[-1]]
    even = bool(np.argmax(np.mean([[task.base_value for task in both] for both in tasks], axis=0)))
    return Prepared([both[even] for both in tasks], [both[0].base_plan() for both in tasks], sensitivity, even)


def lay_out(
    problem: Problem,
    lander: Lander,
    scores: np.ndarray,
    activity: tuple[np.ndarray, np.ndarray],
    sensitivity: Sensitivity,
    weights: np.ndarray,
    balance: bool,
    even: bool,
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
        even: the base plan is the uniform one.
        reach: of an action; see `rlprune.envs.walk.Task`.
    """
    wished = uniform(lander).astype(float) if even else allocate(sensitivity, lander, weights if balance else None)
    facts = (problem.graph, problem.cost, scores, activity, sensitivity, wished)
    features = build_features(*facts, lander.cost.resources)
    return Task(lander, features, wished, 0.0, weights, balance, reach)
