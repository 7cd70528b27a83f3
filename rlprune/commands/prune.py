"""`rlprune prune`."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from rlprune import registry
from rlprune.artifacts.pruned import save_pruned
from rlprune.commands.base import command
from rlprune.config.commands import Prune, Search, check_repair
from rlprune.config.options import USUAL_REPAIR
from rlprune.config.resolve import as_dict, resolve
from rlprune.cost.budget import Budget, parse_budget
from rlprune.errors import UserError
from rlprune.evaluation.sliced import recalibrate
from rlprune.graph.kernels import cut_kernels
from rlprune.latency.timing import quick_latency
from rlprune.methods.criteria.base_choice import score_by, score_each
from rlprune.models.trust import require_named
from rlprune.pipeline.measured_budget import open_budget
from rlprune.pipeline.plans import plan_of
from rlprune.pipeline.recover import cut_and_repaired
from rlprune.pipeline.results import costs, described, sizes, unit_of
from rlprune.plans.plan import PruningPlan, make_plan
from rlprune.plans.ratio_table import ratio_table, ratios_for, read_ratios, rows, stale_counts
from rlprune.runs.folder import as_begun, weights_in
from rlprune.tracing.selection import CHOICES
from rlprune.utils.files import check_new, new_folder
from rlprune.utils.progress import Progress
from rlprune.workloads.dense import train_dense
from rlprune.workloads.pruned import as_planned, settings_of_plan
from rlprune.workloads.workload import DATA_SETTINGS, Workload, open_workload


@command(Prune)
def prune(given: Prune, progress: Progress) -> dict[str, Any]:
    """Cut a dense checkpoint by a plan, a run's plan or a table of ratios; writes a pruned folder to `out`.

    It is repaired as the plan says, else batch norm alone is recalibrated; nothing is trained.
    """
    start = time.perf_counter()
    budget = parse_budget(given.budget)
    source = _read_plan(given.plan) if given.plan is not None else _read_table(given)
    run = _run_of(given)
    wanted = as_dict(given) | _network_settings(source, given) | {"repair": _repair(source, given)}
    if wanted["checkpoint"] is None:
        if run is None:
            raise UserError("--checkpoint is missing: name the file with the dense network's weights")
        wanted["checkpoint"] = run.checkpoint
    out = check_new(given.out or Path(f"{(given.plan or given.ratios or Path()).resolve().stem}-pruned"))
    workload = open_workload(wanted, progress)
    if isinstance(source, PruningPlan):
        workload = as_planned(workload, source)
    if run is not None and wanted["checkpoint"] == run.checkpoint:
        train_dense(workload, run, progress, weights_in(given.plan or Path()))
    plan, latency = _plan(given, source, workload, budget, wanted, progress)
    if not isinstance(source, PruningPlan) and (stale := stale_counts(source)):
        progress.note(f"{given.ratios}: keep_ratio counts, and not the other kept count of {', '.join(stale)}")
    smaller = _cut(plan, workload, wanted["repair"])
    facts = costs(workload, plan.counts())
    save_pruned(smaller, plan, new_folder(out), facts)
    latency = latency or quick_latency(workload.module, smaller, workload.data.shape)
    return {
        "pruned": str(out),
        "plan": str(out / "plan.json"),
        **unit_of(plan),
        **described([budget], workload, time.perf_counter() - start),
        **facts,
        **sizes(workload.module, out),
        "latency": latency,
        "table": rows(ratio_table(workload.graph, workload.cost, plan)),
    }


def _plan(
    given: Prune,
    source: PruningPlan | pd.DataFrame,
    workload: Workload,
    budget: Budget,
    wanted: dict[str, Any],
    progress: Progress,
) -> tuple[PruningPlan, dict[str, Any]]:
    """The plan as it is, or its ratios, rounded or projected onto the budget; its latency where that counts."""
    graph, network = workload.graph, workload.network
    if isinstance(source, PruningPlan):
        if source.kernels is not None:
            return _of_kernels(source, workload, budget, given), {}
        mask = source.mask(graph)
        if not budget.bounded:
            scores = _scores_of_plan(workload, source, given)
            # What was cut may be another checkpoint than the plan was made for.
            own = {key: value for key, value in source.provenance.items() if key != "repair"}
            provenance = {**own, "dense_weights": workload.weights()}
            if wanted["repair"] != USUAL_REPAIR:
                provenance["repair"] = wanted["repair"]
            return replace(make_plan(graph, mask, network, provenance, scores), criteria=source.criteria), {}
        wished = np.array([float(mine.sum()) for mine in graph.split(mask)])
    else:
        wished = ratios_for(graph, source, given.ratios or Path()) * graph.sizes
    measured_budget = open_budget(given, workload, [budget], progress)
    projector = measured_budget.projectors[0]
    rounded = np.maximum(np.floor(wished + 0.5), wished > 0)
    counts = projector.quantise(rounded) if not budget.bounded else projector.project(wished[None])[0]
    counts = measured_budget.settle(counts, progress)
    return plan_of(
        workload, counts, _scores(workload, given.criterion, given.seed), Prune(**wanted)
    ), measured_budget.measured


def _cut(plan: PruningPlan, workload: Workload, repair: str) -> nn.Module:
    """The smaller network; a plan of kernels says which ones stay, whatever would be chosen here."""
    if plan.kernels is None:
        return cut_and_repaired(workload, plan.mask(workload.graph), repair)
    smaller = cut_kernels(workload.module, plan.kernels)
    recalibrate(smaller, workload.calibration()[0])
    return smaller


def _repair(source: PruningPlan | pd.DataFrame, given: Prune) -> str:
    """The repairs that are asked for, or those of the plan."""
    if given.repair is not None or not isinstance(source, PruningPlan):
        return given.repair or USUAL_REPAIR
    told = str(source.provenance.get("repair", USUAL_REPAIR))
    try:
        check_repair(told)
    except UserError as error:
        raise UserError(f"the plan was made with other repairs than there are here, say --repair bn: {error}") from None
    return told


def _of_kernels(source: PruningPlan, workload: Workload, budget: Budget, given: Prune) -> PruningPlan:
    """A plan of kernels for this checkpoint; UserError with a budget, under which other slices would stay."""
    if budget.bounded:
        raise UserError(
            f"--budget {budget}: {given.plan} says which kernels stay; land its ratios with --ratios RUN/ratios.csv "
            f"--unit {source.provenance.get('unit') or 'kernel-group'}"
        )
    provenance = {**source.provenance, "dense_weights": workload.weights()}
    return replace(source, network=workload.network, provenance=provenance)


def _scores(workload: Workload, criterion: str, seed: int) -> np.ndarray:
    return score_by(criterion, workload.module, workload.graph, workload.calibration(), seed)


def _scores_of_plan(workload: Workload, plan: PruningPlan, given: Prune) -> np.ndarray:
    """Those by which a plan was made, as far as its criteria are installed here."""
    told = str(plan.provenance.get("criterion"))
    named = plan.criteria or {group.name: told for group in workload.graph.groups}
    if any(name.partition(":")[0] not in registry.names("criterion") for name in named.values()):
        return _scores(workload, given.criterion, given.seed)
    return score_each(named, workload.module, workload.graph, workload.calibration(), given.seed)


def _run_of(given: Prune) -> Search | None:
    """The settings of the run, where the plan is that of a run folder."""
    path = given.plan / "config.yaml" if given.plan is not None else None
    return as_begun(path.parent, resolve(Search, {}, path)) if path is not None and path.is_file() else None


def _read_plan(given: Path) -> PruningPlan:
    path = given / "plan.json" if given.is_dir() else given
    if not path.is_file():
        raise UserError(f"--plan {given} does not exist: expected plan.json or a run folder")
    if path.suffix in (".csv", ".parquet") or _is_list(path):
        raise UserError(f"--plan {given} is a table of ratios: give it as --ratios {given}")
    return PruningPlan.load(path)


def _read_table(given: Prune) -> pd.DataFrame:
    assert given.ratios is not None
    if given.ratios.suffix == ".json" and given.ratios.is_file() and not _is_list(given.ratios):
        raise UserError(f"--ratios {given.ratios} is no table of ratios: a plan is given as --plan {given.ratios}")
    return read_ratios(given.ratios)


def _is_list(path: Path) -> bool:
    """Whether a JSON file holds the rows of a table."""
    with path.open("rb") as file:
        return file.read(64).lstrip()[:1] == b"["


def _network_settings(plan: PruningPlan | pd.DataFrame, given: Prune) -> dict[str, Any]:
    """Model and data of a plan wherever the settings leave them open."""
    if not isinstance(plan, PruningPlan):
        if given.model is None:
            raise UserError("--model is missing: a table of ratios does not say which network it is for")
        return {}
    data = (*DATA_SETTINGS, "seed") if given.data is None else ()
    keys = (("model", "model_args", "new_head") if given.model is None else ()) + data + CHOICES
    if given.model is None:
        require_named(plan.network.get("model"), given.plan or Path())
    there = settings_of_plan({"model": given.model}, plan)
    return {key: there[key] for key in keys if key in there and getattr(given, key) in (None, False)}
