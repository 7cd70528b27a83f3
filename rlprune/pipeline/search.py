"""The main job: search, prune for real, fine-tune."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn

from rlprune import registry
from rlprune.agents.diagnostics import collapse, reactions
from rlprune.agents.policy import policy_of, save_agent
from rlprune.agents.search.archive import Correct, Target
from rlprune.agents.search.engine import search
from rlprune.agents.search.multi_fidelity import Tuning
from rlprune.agents.search.setup import Prepared, make_evaluator, prepare
from rlprune.config.commands import Search
from rlprune.config.networks import each_network, folder_names
from rlprune.config.options import USUAL_REPAIR
from rlprune.config.resolve import as_dict
from rlprune.cost.budget import Budget, parse_budgets
from rlprune.cost.projection import BudgetProjector
from rlprune.envs.decisions.base import Decision, columns_of, make_decisions, measured_blocks
from rlprune.envs.reward import parse_reward
from rlprune.errors import UserError
from rlprune.evaluation.evaluator import Evaluator
from rlprune.evaluation.finetuned import FineTunedEvaluator
from rlprune.evaluation.pareto import front
from rlprune.evaluation.sensitivity import number_of_evaluations
from rlprune.methods.allocators.additive_dp import additive_optimum
from rlprune.methods.allocators.base_plans import number_of_kinds
from rlprune.methods.recovery.base import Repairs
from rlprune.pipeline.choice import best_first, candidates, tuner_for
from rlprune.pipeline.decisions import decisions_for
from rlprune.pipeline.gated_search import run_gated_search
from rlprune.pipeline.measured_budget import MeasuredBudget, open_budget
from rlprune.pipeline.plans import plan_of, save_plan
from rlprune.pipeline.recover import prune_and_recover
from rlprune.pipeline.results import continuable, described, known_result
from rlprune.pipeline.search_log import SearchLog
from rlprune.plans.counts import plan_key
from rlprune.reports.page import write_run_page
from rlprune.runs.folder import RunFolder, as_begun, default_folder, weights_in, write_result
from rlprune.utils.files import room_for, write_text
from rlprune.utils.lock import locked
from rlprune.utils.progress import Progress
from rlprune.workloads.dense import finetuning_epochs, recipe_of, train_dense
from rlprune.workloads.workload import Workload, inputs_of, open_workload

ENDLESS = 10**6
"""Tunings that only the time limits."""


def run_search(given: Search, progress: Progress) -> dict[str, Any]:
    """Search ratios with an agent, prune for real, fine-tune; continues an unfinished run of the same settings.

    Args:
        given: the settings.
        progress: told how far it is.

    Raises:
        UserError: whatever cannot be used, before any work starts.
    """
    start = time.perf_counter()
    if given.mode == "runtime":
        return run_gated_search(given, progress)
    folder = given.out or default_folder(given)
    asked = progress if given.decide else None
    given = as_begun(folder, given, progress.note)
    networks, budgets, reward = each_network(given), parse_budgets(given.budget), parse_reward(given.reward)
    if len(budgets) > 1 and reward[1]:
        raise UserError(
            f"--budget {given.budget} is a range; with --reward balance the agent itself decides how much goes"
        )
    if (known := known_result(folder, given, progress)) is not None:
        return known
    opened = _open(networks, budgets, folder, progress)
    decisions = decisions_for(given.decisions, [one.workload.cost for one in opened], asked)
    # Only now, when nothing in the settings can be wrong any more, is a folder made.
    RunFolder(folder, given)
    with locked(folder), room_for(folder):
        with continuable(f"what was found so far is in {folder}", progress):
            logs = _begin(given, opened, folder, len(budgets) == 1, progress)
            start -= max(log.run.seconds() for log in logs)
            found = _find(given, opened, logs, decisions, reward, folder)
            each = zip(opened, logs, found, strict=True)
            results = [_end(one, log, plans, budgets, start, progress) for one, log, plans in each]
        result = results[0] if len(results) == 1 else _together(given, folder, results)
        write_result(folder, result)
        write_run_page(folder)
    return result


@dataclass(frozen=True)
class Opened:
    """One network of the search, and the folder of what is found for it.

    Attributes:
        unseen: whether the images that fine-tuned plans are scored on are new to the dense network.
    """

    given: Search
    folder: Path
    workload: Workload
    measured_budget: MeasuredBudget
    evaluator: Evaluator
    unseen: bool


def _open(networks: list[Search], budgets: list[Budget], folder: Path, progress: Progress) -> list[Opened]:
    """Read, trace and train every network; nothing is written but dense networks to the user's cache."""
    workloads = [open_workload(as_dict(networks[0]), progress)]
    workloads += [open_workload(as_dict(one), progress, workloads[0].data) for one in networks[1:]]
    graphs = [workload.graph for workload in workloads]
    decisions = make_decisions(networks[0].decisions)
    blocks = [len(measured_blocks(decisions, workload.cost)) for workload in workloads]
    others = [len(columns_of(decisions, workload.cost).others) for workload in workloads]
    _require_enough(networks[0].evaluations, [len(graph.groups) for graph in graphs], budgets, blocks, others)
    folders = [folder] if len(networks) == 1 else [folder / name for name in folder_names(networks)]
    opened = []
    for one, workload, place in zip(networks, workloads, folders, strict=True):
        measured_budget = open_budget(one, workload, budgets, progress, place)
        unseen = train_dense(workload, one, progress, weights_in(place))
        if one.tunes and not unseen:
            progress.note(
                "the dense network was not trained here without the images that fine-tuned plans are scored on: it may "
                "have seen them"
            )
        evaluator = make_evaluator(workload, one.criterion, one.seed, tell=progress.note, repair=one.repair)
        opened.append(Opened(one, place, workload, measured_budget, evaluator, unseen))
    return opened


def _begin(given: Search, opened: list[Opened], folder: Path, alone: bool, progress: Progress) -> list[SearchLog]:
    """Make a run folder for every network, or open it again; returns what takes the measurements there."""
    runs = [RunFolder(one.folder, one.given) for one in opened]
    start = time.perf_counter() - max(run.seconds() for run in runs)
    logs: list[SearchLog] = []

    def evaluations() -> int:
        return sum(len(one.evaluator.seen) for one in opened)

    for one, run in zip(opened, runs, strict=True):
        one.measured_budget.save(one.folder)
        run.same_inputs(inputs_of(one.workload))
        recipe, epochs = recipe_of(given, one.workload.data), _epochs(given, one.workload)
        tuners = FineTunedEvaluator.of_all_lengths(
            one.workload, one.evaluator.scores, epochs, distill=given.distills, cut=_cutter(one), **recipe
        )
        network = (one.given.model, evaluations) if len(opened) > 1 else None
        logs.append(SearchLog(run, one.workload, one.evaluator, tuners, given, progress, alone, start, network))
    if known := evaluations():
        progress.note(f"continuing {folder}: {known} evaluations are known")
    progress.stage("searching", given.evaluations, known)
    return logs


def _cutter(one: Opened) -> Callable[[np.ndarray], nn.Module] | None:
    """What cuts and repairs networks that are tuned next; tuning itself gives batch norm its statistics."""
    if one.given.repair == USUAL_REPAIR:
        return None
    return Repairs(one.given.repair, one.workload.module, one.workload.graph, one.workload.calibration()[0]).cut


def _end(
    one: Opened, log: SearchLog, found: "Found", budgets: list[Budget], start: float, progress: Progress
) -> dict[str, Any]:
    """Turn what was found for a network into smaller ones, or into a front."""
    found, choice = _choose(one, log, found) if len(budgets) == 1 else (found, {})
    found = _settle(found, one.measured_budget, one.evaluator, progress)
    after = (_finish if len(budgets) == 1 else _front)(one, found, progress)
    result = {"run": str(one.folder), "agent": one.given.agent, "evaluations": len(one.evaluator.seen), **choice}
    # Those of the base plans alone are no search for what tunings leave.
    tuned = _tunings(one, log.tuners, found) if one.given.tunes else {}
    result |= {**tuned, **described(budgets, one.workload, time.perf_counter() - start)}
    return result | after | one.measured_budget.result()


def _together(given: Search, folder: Path, results: list[dict[str, Any]]) -> dict[str, Any]:
    """One result of several networks, each of which gets its own in its own folder."""
    for result in results:
        write_result(Path(result["run"]), result)
        write_run_page(Path(result["run"]))
    shared = {key: results[-1][key] for key in ("agent", "data", "budget", "budget_words", "seconds")}
    total = sum(result["evaluations"] for result in results)
    return {"run": str(folder), "model": given.model, "evaluations": total, **shared, "networks": results}


def _tunings(one: Opened, tuners: Sequence[FineTunedEvaluator], found: "Found") -> dict[str, Any]:
    """How many plans were tuned, on what, and the losses of the chosen one and the base plan after the longest."""
    used = [tuner for tuner in tuners if tuner.seen]
    if not used:
        return {}
    # A plan that was projected anew after its latency was measured has not been tuned.
    losses = [getattr(used[-1].seen.get(plan_key(plan)), "loss", None) for plan in (found.counts[0], found.bases[0])]
    facts = {"tunings": sum(len(tuner.seen) for tuner in used), **_tuned_on(one, used[-1])}
    return facts | dict(zip(("tuned_loss", "base_tuned_loss"), losses, strict=True))


@dataclass(frozen=True)
class Found:
    """What a search started from; and for every budget the best plan, with what stands behind its counts, its loss, and
    that of the sensitivity rule's."""

    prepared: Prepared
    counts: list[np.ndarray]
    losses: list[float]
    base_losses: list[float]

    @property
    def bases(self) -> list[np.ndarray]:
        """The plans of the sensitivity rule."""
        return [starts[0] for starts in self.prepared.starts]


def _require_enough(
    evaluations: int, groups: list[int], budgets: list[Budget], blocks: list[int], others: list[int]
) -> None:
    first = sum(map(number_of_kinds, budgets))
    needed = sum(
        number_of_evaluations(each, some) + first + len(budgets) * (bool(some) + more)
        for each, some, more in zip(groups, blocks, others, strict=True)
    )
    if evaluations < needed:
        told = f"{sum(groups)} groups" + (f" and {sum(blocks)} blocks" if sum(blocks) else "")
        raise UserError(
            f"--evaluations {evaluations} is too few: the sensitivities of {told} and the first plans "
            f"need {needed} before the agent takes a step"
        )


def _find(
    given: Search,
    opened: list[Opened],
    logs: list[SearchLog],
    decisions: tuple[Decision, ...],
    reward: tuple[np.ndarray, bool],
    folder: Path,
) -> list[Found]:
    """Search; the policy goes to the run folder, the best plans so far also when it is interrupted."""
    try:
        prepared = [
            prepare(
                one.workload,
                one.measured_budget.projectors,
                one.evaluator,
                *reward,
                log.begin,
                tune=log.base_tunings if len(opened) == 1 else None,
                decisions=decisions,
            )
            for one, log in zip(opened, logs, strict=True)
        ]
        # First come the base plans.
        targets = [
            Target(ready.specs, log.oneshot, ready.sensitivity.predict, ready.first, _correct(one, log))
            for one, log, ready in zip(opened, logs, prepared, strict=True)
        ]
        first, *_ = logs
        measures = [partial(first.tuned, level) for level, _ in enumerate(first.tuners, start=1)]
        found = search(
            targets,
            given.evaluations - sum(log.sensitivities() for log in logs),
            registry.make("agent", given.agent),
            given.seed,
            folder / "tensorboard" / given.agent.partition(":")[0],
            Tuning(measures, given.tunings or ENDLESS, _tuned_first(opened[0], prepared[0])) if given.tunes else None,
            first.over,
        )
    except KeyboardInterrupt:
        for one, log in zip(opened, logs, strict=True):
            if (counts := log.best.counts) is not None:
                save_plan(one.workload, plan_of(one.workload, counts, one.evaluator.scores, one.given), one.folder)
        raise
    trained = [(one.workload, ready) for one, ready in zip(opened, prepared, strict=True)]
    save_agent(found.agent, policy_of(found.agent, given, trained), folder / "policy")
    plans = iter(found.counts)
    return [_found(*each, found.agent, plans) for each in zip(opened, logs, prepared, strict=True)]


def _tuned_first(one: Opened, prepared: Prepared) -> list[np.ndarray]:
    """The base plans and, under a hard budget, the optimum of the additive model: no simple plan shall be missed."""
    starts = prepared.starts[0]
    if one.given.reward != "loss":
        return starts
    optimum = additive_optimum(prepared.sensitivity, one.measured_budget.projectors[0])
    return [*starts, prepared.specs[0].columns.complete(optimum, len(optimum))]


def _correct(one: Opened, log: SearchLog) -> Correct | None:
    """How the latency model of a network is corrected while there are plans to compare it with."""
    if len(one.measured_budget.projectors) > 1 or not one.measured_budget.projectors[0].budget.timed:
        return None

    def correct(counts: np.ndarray) -> BudgetProjector:
        projector = one.measured_budget.correct(counts, one.folder, log.progress)
        log.project(projector)
        return projector

    return correct


def _found(one: Opened, log: SearchLog, prepared: Prepared, agent: BaseAlgorithm, plans: Iterator[np.ndarray]) -> Found:
    """What the search has found for a network, and how the agent walks it."""
    if remark := collapse(agent, prepared.specs[0]):
        log.progress.note(remark)
    write_text(one.folder / "reactions.csv", reactions(agent, prepared.specs).to_csv(index=False))
    log.end()
    counts = [next(plans) for _ in prepared.specs]
    losses = [one.evaluator(each).loss for each in counts]
    base_losses = [one.evaluator(starts[0]).loss for starts in prepared.starts]
    return Found(prepared, counts, losses, base_losses)


def _choose(one: Opened, log: SearchLog, found: Found) -> tuple[Found, dict[str, Any]]:
    """The same with the plan that is to be fine-tuned, and what the result says of the choice.

    Where plans were fine-tuned all along, nothing is fine-tuned, or the agent decides how much goes, it stays the best.
    """
    given, workload = one.given, one.workload
    if given.tunes or given.reward != "loss" or given.finetune_epochs == 0:
        return found, {}
    if (tuner := tuner_for(log.tuners, _epochs(given, workload) * len(workload.data.train))) is None:
        return found, {}
    name = given.agent.partition(":")[0]
    plans = candidates(name, found.counts[0], found.prepared, one.measured_budget.projectors[0])
    losses = dict(zip(plans, log.final_tunings(tuner, list(plans.values())), strict=True))
    best = plans[min(losses, key=losses.__getitem__)]
    facts = {"choice": best_first(losses), **_tuned_on(one, tuner)}
    return replace(found, counts=[best], losses=[one.evaluator(best).loss]), facts


def _tuned_on(one: Opened, tuner: FineTunedEvaluator) -> dict[str, Any]:
    """How long plans were tuned, and on what they were scored."""
    return {"tuned_on": tuner.length, "held_images": len(tuner.held), "held_from_dense": one.unseen}


def _epochs(given: Search, workload: Workload) -> int:
    """Of the fine-tuning at the end; where that is left to somebody else, as many as are usual."""
    return finetuning_epochs(given, workload.data, given.finetune_epochs or None)


def _settle(found: Found, measured_budget: MeasuredBudget, evaluator: Evaluator, progress: Progress) -> Found:
    """The same, with the plan that the final measurement of its latency leads to."""
    plan = measured_budget.settle(found.counts[0], progress)
    if (plan == found.counts[0]).all():
        return found
    return replace(found, counts=[plan], losses=[evaluator(plan).loss])


def _finish(one: Opened, found: Found, progress: Progress) -> dict[str, Any]:
    """Prune to the one plan, and fine-tune."""
    given, workload, folder = one.given, one.workload, one.folder
    plan = plan_of(workload, found.counts[0], one.evaluator.scores, given, found.prepared.sensitivity)
    epochs = 0 if given.finetune_epochs == 0 else _epochs(given, workload)
    after = prune_and_recover(workload, plan, folder, epochs, given, progress)
    losses = {"search_loss": found.losses[0], "base_loss": found.base_losses[0]}
    return {"plan": str(folder / "plan.json"), **losses, **after}


def _front(one: Opened, found: Found, progress: Progress) -> dict[str, Any]:
    """Write `front.csv`; which plan of it is pruned is for `replay` to say."""
    workload, evaluator, folder = one.workload, one.evaluator, one.folder
    projectors = one.measured_budget.projectors
    low, high = projectors[0].budget.limits, projectors[-1].budget.limits
    table = front(evaluator.seen, workload.cost, next(name for name in low if low[name] < high[name]))
    write_text(folder / "front.csv", table.to_csv(index=False, lineterminator="\n"))
    plans = []
    for projector, counts, loss, base in zip(projectors, found.counts, found.losses, found.base_losses, strict=True):
        ratios = workload.cost.ratios(counts)
        plans.append(
            {
                "budget": str(projector.budget),
                "search_loss": loss,
                "search_accuracy": evaluator(counts).accuracy,
                "base_loss": base,
                "macs_ratio": float(ratios[0]),
                "params_ratio": float(ratios[1]),
            }
        )
    return {"front": str(folder / "front.csv"), "front_plans": len(table), "plans": plans}
