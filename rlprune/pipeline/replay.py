"""A policy on another checkpoint, budget, data set or network, without a search."""

import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from rlprune.agents.policy import Policy, find_policy, load_policy
from rlprune.agents.search.local import refine
from rlprune.agents.search.setup import lay_out, make_evaluator
from rlprune.agents.transfer import HERE, SourceNetwork, nearest_source
from rlprune.config.commands import Replay, Search
from rlprune.config.networks import settings_for
from rlprune.config.resolve import as_dict, resolve
from rlprune.config.units import CHANNEL
from rlprune.cost.budget import Budget, parse_budget
from rlprune.cost.projection import BudgetProjector
from rlprune.envs.decisions.base import make_decisions
from rlprune.envs.episode import EpisodeSpec
from rlprune.envs.reward import parse_reward
from rlprune.errors import UserError
from rlprune.evaluation.activity import channel_activity
from rlprune.evaluation.evaluator import Evaluator
from rlprune.evaluation.pareto import front
from rlprune.methods.allocators.base_plans import base_wishes, wish_of
from rlprune.models.trust import require_named
from rlprune.pipeline.measured_budget import open_budget
from rlprune.pipeline.plans import plan_of
from rlprune.pipeline.recover import prune_and_recover
from rlprune.pipeline.results import described
from rlprune.plans.counts import plan_key, text_to_key
from rlprune.runs.folder import known_in, write_result
from rlprune.runs.journal import Known
from rlprune.tracing.selection import CHOICES
from rlprune.utils.criteria import parse_criteria
from rlprune.utils.files import check_new
from rlprune.utils.progress import Progress
from rlprune.workloads.dense import train_dense
from rlprune.workloads.workload import Workload, inputs_of, open_workload

OF_IMAGES = (
    "image_size", "channels", "mean", "std", "search_images", "calibration_images", "train_epochs", "checkpoint",
)  # fmt: skip
OF_NETWORK = (*CHOICES, "checkpoint")
MEANING = "0: every group has its like there; 1: they differ as much as the groups there do among themselves"


def run_replay(given: Replay, progress: Progress) -> dict[str, Any]:
    """Walk a policy on another checkpoint, budget, data set or network: no search, and no evaluation unless allowed.

    Args:
        given: the settings.
        progress: told how far it is.

    Raises:
        UserError: whatever cannot be used, before any work starts.
    """
    start = time.perf_counter()
    policy = load_policy(find_policy(given.source))
    trained = settings_for(policy.settings, given.model, given.model_args)
    there = _settings(given, trained)
    _check_criterion(given, trained)
    if there.unit != CHANNEL:
        raise UserError(
            f"the policy in {given.source} was trained with --unit {there.unit}: only policies of channels are replayed"
        )
    if given.model is None:
        require_named(there.model, given.source)
    budget = parse_budget(there.budget)
    out = check_new(given.out or _beside(given.source, budget))
    workload = open_workload(as_dict(there), progress)
    measured_budget = open_budget(there, workload, [budget], progress)
    train_dense(workload, there, progress, [source.inputs["dense weights"] for source in policy.sources])
    source_network, same = nearest_source(policy.sources, workload), _asks_the_same(there, trained)
    known = known_in(given.source, inputs_of(workload)) if same else {}
    progress.stage("walking the network", given.evaluations or None)
    evaluator = make_evaluator(workload, there.criterion, there.seed, dict(known), progress.note, there.repair)
    evaluator.on_new = lambda counts, evaluation: progress.update(len(evaluator.seen) - len(known))
    found = _find(given, policy, source_network, there, workload, evaluator, measured_budget.projectors[0], known)
    found = replace(found, counts=measured_budget.settle(found.counts, progress))
    measured = source_network.sensitivity if same and source_network.kind(workload) == HERE else None
    plan = plan_of(workload, found.counts, evaluator.scores, there, measured)
    after = prune_and_recover(workload, plan, out, given.finetune_epochs, there, progress)
    plans = (found.counts, found.walked, found.base)
    losses = [getattr(evaluator.seen.get(plan_key(counts)), "loss", None) for counts in plans]
    result = {
        "run": str(out),
        "plan": str(out / "plan.json"),
        "agent": there.agent,
        "evaluations": len(evaluator.seen) - len(known),
        **dict(zip(("search_loss", "policy_loss", "base_loss"), losses, strict=True)),
        "home": {"kind": source_network.kind(workload), "distance": round(found.distance, 3), "meaning": MEANING},
        **described([budget], workload, time.perf_counter() - start),
        **after,
        **measured_budget.result(),
    }
    write_result(out, result)
    measured_budget.save(out)
    return result


@dataclass(frozen=True)
class Found:
    """The plan that is taken, the policy's and the rule's, and how far from source_network it is."""

    counts: np.ndarray
    walked: np.ndarray
    base: np.ndarray
    distance: float


def _find(
    given: Replay,
    policy: Policy,
    source_network: SourceNetwork,
    there: Search,
    workload: Workload,
    evaluator: Evaluator,
    projector: BudgetProjector,
    known: Known,
) -> Found:
    """Walk with borrowed curves, then spend the evaluations."""
    spec = _spec(workload, policy, source_network, evaluator, projector, there)
    same = source_network.is_same_architecture(workload.graph)
    seen = replace(spec, features=source_network.familiar(spec.features)) if same else spec
    walked, base = policy.walk(seen), spec.base_plan()
    plans = [walked, base, *_neighbours(known, spec)]
    counts = refine(spec, plans, evaluator, given.evaluations, there.seed)
    return Found(counts, walked, base, source_network.distance(spec.features))


def _settings(given: Replay, source_network: dict[str, Any]) -> Search:
    """The settings of the search with what is given in their place; what belongs to another network is left out."""
    # False says nothing where nothing else goes without saying.
    unsaid = {entry.name: (None, False) if entry.default is False else (None,) for entry in fields(given)}
    mine = {key: value for key, value in as_dict(given).items() if value not in unsaid[key]}
    mine = {key: value for key, value in mine.items() if key in source_network and key not in ("evaluations", "out")}
    foreign: tuple[str, ...] = ()
    if mine.get("data", source_network["data"]) != source_network["data"]:
        foreign += OF_IMAGES
    if any(mine.get(key, source_network[key]) != source_network[key] for key in ("model", "model_args")):
        foreign += OF_NETWORK + (("model_args",) if "model" in mine else ())
    there = resolve(
        Search, {key: value for key, value in source_network.items() if key not in (*foreign, "out")} | mine
    )
    if given.budget is None and isinstance(there.budget, str) and ":" in there.budget:
        raise UserError(f"--budget is missing: the policy in {given.source} serves {there.budget}, say which one")
    if given.checkpoint is None and there.checkpoint is not None and not there.checkpoint.is_file():
        raise UserError(f"--checkpoint is missing: that of the search, {there.checkpoint}, is not here")
    return there


def _check_criterion(given: Replay, trained: dict[str, Any]) -> None:
    """A policy chooses among as many criteria as it was trained with."""
    if given.criterion is None:
        return
    here, there = (len(parse_criteria(text).names) for text in (given.criterion, trained["criterion"]))
    if here != there:
        raise UserError(
            f"--criterion {given.criterion} leaves {here} to choose from, and the policy in {given.source} was trained "
            f"with {there}, {trained['criterion']}: leave it out, or name as many"
        )


def _beside(source: Path, budget: Budget) -> Path:
    source = source.resolve()
    return source.with_name(f"{source.name}-replay-{budget}")


def _asks_the_same(there: Search, source_network: dict[str, Any]) -> bool:
    """Whether a plan has the same loss as in the search, given the same weights and images."""
    here = as_dict(there)
    same = ("model", "model_args", "criterion", "repair", "seed", *CHOICES)
    return all(here[key] == source_network[key] for key in same)


def _spec(
    workload: Workload,
    policy: Policy,
    source_network: SourceNetwork,
    evaluator: Evaluator,
    projector: BudgetProjector,
    there: Search,
) -> EpisodeSpec:
    """What is walked, with the network's own curves or borrowed ones and the kind of base plan that was good there."""
    activity = channel_activity(workload.module, workload.graph, workload.calibration()[0])
    curves, reward = source_network.borrow(workload.graph, workload.cost), parse_reward(there.reward)
    wished = wish_of(source_network.base, base_wishes(curves, projector, reward[0] if reward[1] else None))
    # Only what it has learnt to decide; a network that has no blocks shows it that there are none.
    seen = [(each, set(each.describe(projector.cost, curves))) for each in make_decisions(there.decisions)]
    decisions = tuple(each for each, names in seen if not names or names & set(policy.names))
    facts = (workload, projector, np.atleast_2d(evaluator.scores)[0], activity, curves)
    return lay_out(*facts, *reward, wished, policy.reach, decisions)


def _neighbours(known: Known, spec: EpisodeSpec) -> np.ndarray:
    """The plans of the run's front just below and above the budget, projected onto it."""
    projector = spec.projector
    if not known:
        return np.empty((0, len(projector.sizes)), dtype=np.int64)
    limits = projector.budget.limits
    resource = next(iter(limits), "macs")
    table = front(known, projector.cost, resource)
    place = int(np.searchsorted(table[f"{resource}_ratio"], limits.get(resource, 1.0), side="right"))
    nearest = table["counts"].iloc[max(place - 1, 0) : place + 1]
    counts, chosen = spec.split(np.array([text_to_key(text) for text in nearest], dtype=float))
    return spec.join(projector.project(counts), chosen)
