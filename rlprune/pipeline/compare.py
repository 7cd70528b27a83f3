"""Allocators compete on one evaluator, one budget and one number of evaluations."""

import time
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any

from rlprune import registry
from rlprune.config.commands import Compare, Search
from rlprune.config.resolve import as_dict
from rlprune.cost.budget import Budget, parse_budget
from rlprune.cost.projection import BudgetProjector
from rlprune.envs.decisions.base import columns_of, make_decisions, measured_blocks
from rlprune.errors import UserError
from rlprune.evaluation.metered import AllocationProblem, EvaluationCache
from rlprune.methods.allocators.base import Allocator
from rlprune.pipeline.decisions import decisions_for
from rlprune.pipeline.measured_budget import open_budget
from rlprune.pipeline.plans import plan_of
from rlprune.pipeline.rankings import Ranking, rankings
from rlprune.pipeline.recover import recover
from rlprune.pipeline.results import continuable, described
from rlprune.plans.counts import counts_to_text, top_mask
from rlprune.plans.plan import PruningPlan
from rlprune.reports.comparison_chart import draw_comparison
from rlprune.reports.words import heading
from rlprune.runs.comparison import Cell, ComparisonTables, standings, verdict
from rlprune.runs.folder import RunFolder, as_begun, folder_of
from rlprune.utils.files import FileFormat, room_for
from rlprune.utils.lock import locked
from rlprune.utils.progress import Progress
from rlprune.workloads.dense import train_dense
from rlprune.workloads.workload import Workload, inputs_of, open_workload

COMPARISON_FORMAT = FileFormat("rlprune-comparison")
Allocators = dict[str, Allocator]


def run_comparison(given: Compare, progress: Progress) -> dict[str, Any]:
    """Let search methods compete on one evaluator, one budget and one number of evaluations; continues where it ended.

    Args:
        given: the settings.
        progress: told how far it is.

    Raises:
        UserError: whatever cannot be used, before any work starts.
    """
    start = time.perf_counter()
    budget = parse_budget(given.budget)
    folder = given.out or folder_of(given, "compare", given.model, given.data, given.budget)
    asked = progress if given.decide else None
    given = as_begun(folder, given, progress.note)
    RunFolder.check(folder, given)
    if (folder / "comparison.json").is_file():
        progress.note(f"{folder} is finished already; this is its result")
        return COMPARISON_FORMAT.read(folder / "comparison.json")
    allocators: Allocators = {name: registry.make("allocator", name) for name in given.names}
    workload = open_workload(as_dict(given), progress)
    decide = [name for name in given.decisions if decisions_for([name], [workload.cost], asked)]
    decisions, groups = make_decisions(decide), len(workload.graph.groups)
    columns = columns_of(decisions, workload.cost)
    blocks, others = len(measured_blocks(decisions, workload.cost)), len(columns.others)
    _require_enough(given, allocators, groups, budget, blocks, others)
    measured_budget = open_budget(given, workload, [budget], progress, folder)
    projector = measured_budget.projectors[0]
    train_dense(workload, _as_search(given, given.seed), progress)
    ranked = rankings(given, workload, progress.note)
    for ranking in ranked:
        ranking.cache.complete = lambda plan: columns.complete(plan, groups)
    _require_applicable(given, allocators, workload, projector, ranked[0].cache)
    run = RunFolder(folder, given)
    with locked(folder), room_for(folder):
        run.same_inputs(inputs_of(workload))
        measured_budget.save(folder)
        for ranking in ranked:
            ranking.remember(run, workload)
        tables = ComparisonTables(folder)
        start -= sum(sum(ranking.cache.seconds.values()) for ranking in ranked)
        start -= sum(cell.own_seconds for cell in tables.cells)
        with continuable(f"what has ended so far is in {folder}", progress):
            _run_all(given, decide, allocators, workload, projector, ranked, tables, progress)
        result = {"run": str(folder), **described([budget], workload, time.perf_counter() - start)}
        result |= _outcome(given, workload, tables)
        draw_comparison(tables.curves, given.evaluations, heading(result), folder)
        COMPARISON_FORMAT.write(folder / "comparison.json", result)
    return result


def _outcome(given: Compare, workload: Workload, tables: ComparisonTables) -> dict[str, Any]:
    """What the cells say, and how good the dense network is on the test images."""
    dense = workload.dense_accuracy()
    records = standings(tables.cells)
    facts = {"evaluations": given.evaluations, "seeds": given.seeds, "dense_accuracy": dense}
    return facts | {"methods": records, "verdict": verdict(records)}


def _require_enough(
    given: Compare, allocators: Allocators, groups: int, budget: Budget, blocks: int, others: int
) -> None:
    needed = {name: allocator.evaluations_needed(groups, budget) for name, allocator in allocators.items()}
    # Each block alone, and the first plan without some of them; the base plan with other columns.
    needed |= {name: needed[name] + blocks + bool(blocks) + others for name in given.agents}
    hungriest = max(given.names, key=needed.__getitem__)
    if given.evaluations < (least := needed[hungriest]):
        raise UserError(
            f"--evaluations {given.evaluations} is too few for {hungriest}: the sensitivities of {groups} groups and "
            f"the first plans need {least}"
        )


def _require_applicable(
    given: Compare, allocators: Allocators, workload: Workload, projector: BudgetProjector, cache: EvaluationCache
) -> None:
    for name, allocator in allocators.items():
        try:
            allocator.check(AllocationProblem(cache, workload, projector, name, given.seed, given.evaluations))
        except UserError as error:
            raise UserError(f"--methods: leave out {name}, which does not apply to this network: {error}") from None


def _as_search(given: Compare, seed: int) -> Search:
    """The search that a run of an agent is, with its seed."""
    shared = {entry.name: getattr(given, entry.name) for entry in fields(Search) if hasattr(given, entry.name)}
    return Search(**shared | {"seed": seed})


def _run_all(
    given: Compare,
    decide: list[str],
    allocators: Allocators,
    workload: Workload,
    projector: BudgetProjector,
    ranked: list[Ranking],
    tables: ComparisonTables,
    progress: Progress,
) -> None:
    """Every method with every criterion and seed; those that have ended in an earlier run are in the tables already."""
    if any(ranking.cache.seconds for ranking in ranked):
        total = len(given.names) * len(ranked) * given.seeds
        progress.note(f"continuing {tables.folder}: {len(tables.cells)} of {total} runs have ended")

    def told(problem: AllocationProblem) -> None:
        best = {} if problem.best is None else {"best_loss": f"{problem.result.loss:.3f}"}
        progress.update(len(problem.seen), **best)

    for seed, name, ranking in product(range(given.seed, given.seed + given.seeds), given.names, ranked):
        label, cache = ranking.label(name), ranking.cache
        if (label, seed) in tables:
            continue
        progress.stage(f"{label}, seed {seed}", given.evaluations)
        problem = AllocationProblem(cache, workload, projector, label, seed, given.evaluations, told, decide)
        remark = allocators[name].allocate(problem).remark
        if remark:
            progress.note(f"{label}, seed {seed}: {remark}")
        state = tables.folder / "state" / f"{label}-{seed}.pt"
        cell = _cell(ranking.given, workload, problem, remark, state, progress)
        # Before the cell, so that whatever has ended has its plan.
        _plan(ranking.given, workload, problem).save(tables.folder / "plans" / f"{label}-{seed}.json")
        tables.add(cell, problem.curve)
        state.unlink(missing_ok=True)


def _plan(given: Compare, workload: Workload, problem: AllocationProblem) -> PruningPlan:
    """The plan that a run has ended with, for `rlprune prune`."""
    assert problem.best is not None
    best, scores = problem.cache.complete(problem.best), problem.cache.evaluator.scores
    return plan_of(workload, best, scores, _as_search(given, problem.seed))


def _cell(
    given: Compare, workload: Workload, problem: AllocationProblem, remark: str, state: Path, progress: Progress
) -> Cell:
    """The result of a run; here, once, the test images are looked at."""
    assert problem.best is not None
    seconds, own = problem.times()
    best = problem.cache.complete(problem.best)
    mask = top_mask(workload.graph, best, problem.cache.evaluator.scores)
    after = recover(workload, mask, given.finetune_epochs, _as_search(given, problem.seed), state, progress)
    macs, params = workload.cost.ratios(problem.best)
    return Cell(
        problem.method,
        problem.seed,
        problem.result.loss,
        problem.result.accuracy,
        after.oneshot,
        after.tuned,
        len(problem.seen),
        seconds,
        own,
        float(macs),
        float(params),
        remark,
        counts_to_text(best),
    )
