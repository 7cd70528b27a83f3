"""From a dense network to the episodes of a search: criterion, sensitivities, base plan, observations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlprune.agents.search.base_choice import Tune, best_kind
from rlprune.cost.projection import BudgetProjector
from rlprune.envs.decisions.base import Decision, columns_of, measured_blocks
from rlprune.envs.decisions.channels import Channels
from rlprune.envs.episode import EpisodeSpec
from rlprune.envs.observation import build_features
from rlprune.evaluation.activity import channel_activity
from rlprune.evaluation.evaluator import Evaluator, PlanEvaluator, Runner
from rlprune.evaluation.metered import AllocationProblem
from rlprune.evaluation.network import PreparedNetwork
from rlprune.evaluation.repaired import RepairedRunner
from rlprune.evaluation.sensitivity import Sensitivity, measure
from rlprune.methods.allocators.base_plans import KINDS, base_wishes
from rlprune.methods.criteria.base_choice import score_by
from rlprune.methods.recovery.base import USUAL, Repairs
from rlprune.tasks.base import Evaluation
from rlprune.tasks.classification import CLASSIFICATION
from rlprune.utils.device import evaluation_dtype
from rlprune.workloads.workload import Workload


@dataclass(frozen=True)
class Prepared:
    """What a search or a replay starts from.

    Attributes:
        specs: what is walked and what counts, one a budget.
        starts: for each of them the base plans that were measured, the sensitivity rule's first; the best kind of them
            is the one walked.
        sensitivity: the measured curves.
        base: the kind of the base plans that are walked, one of `rlprune.methods.allocators.base_plans.KINDS`.
        others: for each of the budgets more plans that are measured first, see `rlprune.envs.decisions.base.Columns`.
    """

    specs: list[EpisodeSpec]
    starts: list[list[np.ndarray]]
    sensitivity: Sensitivity
    base: str
    others: list[list[np.ndarray]]

    @property
    def first(self) -> list[list[np.ndarray]]:
        """For each of the budgets all plans that a search measures first."""
        return [[*starts, *others] for starts, others in zip(self.starts, self.others, strict=True)]


def make_evaluator(
    workload: Workload,
    criterion: str,
    seed: int,
    seen: dict[tuple[int, ...], Evaluation] | None = None,
    tell: Callable[[str], None] = lambda text: None,
    repair: str = USUAL,
) -> Evaluator:
    """The evaluator of a workload: cut by what `--criterion` says, scored on the search split; `tell` as for runners.

    Where batch norm alone is repaired, slices are run; with other repairs the network is cut for every plan.
    """
    scores = score_by(criterion, workload.module, workload.graph, workload.calibration(), seed)
    return Evaluator(_runner(workload, repair, tell), scores, *workload.search(), seen)


def _runner(workload: Workload, repair: str, tell: Callable[[str], None]) -> Runner:
    if repair == USUAL:
        return workload.runner(tell)
    repairs = Repairs(repair, workload.module, workload.graph, workload.calibration()[0])
    return RepairedRunner(repairs.cut, workload.graph, dtype=evaluation_dtype(workload.device), tell=tell)


def prepare(
    workload: PreparedNetwork,
    projectors: Sequence[BudgetProjector],
    evaluator: PlanEvaluator,
    weights: np.ndarray,
    balance: bool,
    begin: Callable[[EpisodeSpec], None] = lambda spec: None,
    tune: Tune | None = None,
    decisions: tuple[Decision, ...] = (Channels(),),
) -> Prepared:
    """Measure the sensitivities and lay down the base plans.

    They are those of the sensitivity rule, or of another kind that is better over all budgets, see `base_wishes`: the
    rule adds up what groups lose one by one, which foretells little where much has to go. Under a single budget, where
    one-shot losses do not tell which is better, a brief tuning of each does; see `rlprune.agents.search.base_choice`.

    Args:
        workload: network and images.
        projectors: budgets and cost.
        evaluator: scores plans.
        weights, balance: the reward; see `rlprune.envs.reward`.
        begin: told of an episode before its base plan, the first that counts, is measured.
        tune: plans -> losses after brief tunings; None where plans are only evaluated.
        decisions: what is asked in a walk. Where blocks may go, what each alone costs is measured, too, and a plan
            without some of them is among the starts.
    """
    cost = projectors[0].cost
    blocks, columns = measured_blocks(decisions, cost), columns_of(decisions, cost)

    def losses(plans: list[np.ndarray]) -> list[float]:
        whole = [columns.complete(plan, len(cost.sizes)) for plan in plans]
        return [found.loss for found in evaluator.evaluate(whole)]

    sensitivity = measure(losses, projectors[0], blocks)
    activity = channel_activity(workload.module, workload.graph, workload.calibration()[0])

    def value(spec: EpisodeSpec) -> float:
        plan = spec.base_plan()
        return float(spec.value(plan[None], np.array([evaluator(plan).loss]))[0])

    specs: list[list[EpisodeSpec]] = []
    for projector in projectors:
        facts = (workload, projector, np.atleast_2d(evaluator.scores)[0], activity, sensitivity, weights, balance)
        wishes = base_wishes(sensitivity, projector, weights if balance else None)
        specs.append([lay_out(*facts, wished, decisions=decisions) for wished in wishes])
        begin(specs[-1][0])
        specs[-1] = [replace(spec, base_value=value(spec)) for spec in specs[-1]]
    data = workload.data
    best = best_kind(specs, len(data.search), CLASSIFICATION.chance_loss(len(data.classes)), tune)
    starts = [[spec.base_plan() for spec in kinds] for kinds in specs]
    if blocks:
        starts = [
            [*plans, without_blocks(kinds[best], sensitivity)] for plans, kinds in zip(starts, specs, strict=True)
        ]
    walked = [kinds[best] for kinds in specs]
    return Prepared(walked, starts, sensitivity, KINDS[best], [with_others(spec) for spec in walked])


def prepare_for(problem: AllocationProblem, decisions: tuple[Decision, ...] = (Channels(),)) -> tuple[Prepared, int]:
    """What an allocator's search starts from, and how many plans it may measure, its first ones among them.

    Args:
        problem: counts the evaluations; what is measured from the base plans on may be its result.
        decisions: what is asked in a walk.
    """
    probes = 0

    def begin(spec: EpisodeSpec) -> None:
        nonlocal probes
        probes = len(problem.seen)
        problem.begin()

    facts = (problem.workload, [problem.projector], problem, np.zeros(2), False, begin)
    prepared = prepare(*facts, decisions=decisions)
    return prepared, problem.evaluations - probes


def with_others(spec: EpisodeSpec) -> list[np.ndarray]:
    """The base plan with what decisions put into their columns instead, each in turn."""
    counts, _ = spec.split(spec.base_plan()[None])
    return [spec.join(counts, np.array([other], dtype=np.int64))[0] for other in spec.columns.others]


def without_blocks(spec: EpisodeSpec, sensitivity: Sensitivity) -> np.ndarray:
    """The plan around the base plan that is foretold to lose least, of those without some blocks.

    They go one after the other, the one first that costs least for what it saves of the resource that is bounded most.
    """
    cost, limits = spec.projector.cost, spec.projector.budget.fractions(spec.projector.cost.resources)
    bounded = int(np.argmin(limits))
    rises = np.array([max(rise, 0.0) for _, rise in sensitivity.blocks])
    wished, plans = spec.base.copy(), []
    for block in np.argsort(rises / np.maximum(cost.saved_without()[:, bounded], 1e-9), kind="stable"):
        wished = wished.copy()
        wished[list(cost.blocks[block])] = 0
        plans.append(spec.finish(wished[None])[0])
    counts, _ = spec.split(np.array(plans))
    foretold = sensitivity.predict(counts / spec.projector.sizes)
    return plans[int(np.argmin(foretold))]


def lay_out(
    workload: PreparedNetwork,
    projector: BudgetProjector,
    scores: np.ndarray,
    activity: tuple[np.ndarray, np.ndarray],
    sensitivity: Sensitivity,
    weights: np.ndarray,
    balance: bool,
    wished: np.ndarray,
    reach: float = 1.0,
    decisions: tuple[Decision, ...] = (Channels(),),
) -> EpisodeSpec:
    """An episode whose base plan is not valued yet; takes no evaluation.

    Args:
        workload: network and images.
        projector: budget and cost.
        scores: (all groups' channels,) of the criterion.
        activity: of all channels; see `rlprune.evaluation.activity`.
        sensitivity: measured or borrowed curves.
        weights, balance: the reward; see `rlprune.envs.reward`.
        wished: (groups,) counts of the base plan, not projected.
        reach: of an action; see `rlprune.envs.episode.EpisodeSpec`.
        decisions: what is asked in a walk.
    """
    facts = (workload.graph, workload.cost, scores, activity, sensitivity, wished)
    features = build_features(*facts, projector.cost.resources).asking(decisions, projector.cost, sensitivity)
    names = tuple(group.name for group in workload.graph.groups)
    return EpisodeSpec(projector, features, wished, 0.0, weights, balance, reach, names, decisions)
