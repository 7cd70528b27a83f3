"""`rlprune prune`."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rlprune.budget import Budget, parse_budget
from rlprune.choice import CHOICES
from rlprune.config import Prune, Search, as_dict, resolve
from rlprune.criteria import CRITERIA, score_channels
from rlprune.errors import UserError
from rlprune.evaluator import recalibrate
from rlprune.files import check_new, new_folder
from rlprune.finish import costs, described, plan_of, save_pruned, sizes
from rlprune.landing import open_landing
from rlprune.models.named import require_named
from rlprune.plan import PruningPlan, make_plan, ratio_table, rows
from rlprune.problem import DATA_SETTINGS, Problem, open_problem, settings_of_plan, train_dense
from rlprune.progress import Progress
from rlprune.pruner import prune as cut
from rlprune.table import ratios_for, read_ratios, stale_counts
from rlprune.timing import quick_latency


def prune(*, config: Path | None = None, progress: Progress | None = None, **settings: Any) -> dict[str, Any]:
    """Cut a dense checkpoint by a plan, a run's plan or a table of ratios; writes a pruned folder to `out`.

    Batch norm is recalibrated on the calibration images; nothing is trained.

    Args:
        config: YAML file of settings, below those given here.
        progress: told how far it is.
        settings: see `rlprune.settings.Prune`.

    Raises:
        UserError: whatever cannot be used.
    """
    start, progress = time.perf_counter(), progress or Progress()
    given = resolve(Prune, settings, config)
    budget = parse_budget(given.budget)
    source = _read_plan(given.plan) if given.plan is not None else _read_table(given)
    run = _run_of(given)
    wanted = as_dict(given) | _network_settings(source, given)
    if wanted["checkpoint"] is None:
        if run is None:
            raise UserError("--checkpoint is missing: name the file with the dense network's weights")
        wanted["checkpoint"] = run.checkpoint
    out = check_new(given.out or Path(f"{(given.plan or given.ratios or Path()).resolve().stem}-pruned"))
    problem = open_problem(wanted, progress)
    if run is not None and wanted["checkpoint"] is None:
        train_dense(problem, run, run.train_epochs, progress)
    plan, latency = _plan(given, source, problem, budget, wanted, progress)
    if not isinstance(source, PruningPlan) and (stale := stale_counts(source)):
        progress.note(f"{given.ratios}: keep_ratio counts, and not the other kept count of {', '.join(stale)}")
    smaller = cut(problem.module, problem.graph, plan.mask(problem.graph))
    recalibrate(smaller, problem.calibration()[0])
    facts = costs(problem, plan.counts())
    save_pruned(smaller, plan, new_folder(out), facts)
    latency = latency or quick_latency(problem.module, smaller, problem.data.image_size)
    return {
        "pruned": str(out),
        "plan": str(out / "plan.json"),
        **described([budget], problem, time.perf_counter() - start),
        **facts,
        **sizes(problem.module, out),
        "latency": latency,
        "table": rows(ratio_table(problem.graph, problem.cost, plan)),
    }


def _plan(
    given: Prune,
    source: PruningPlan | pd.DataFrame,
    problem: Problem,
    budget: Budget,
    wanted: dict[str, Any],
    progress: Progress,
) -> tuple[PruningPlan, dict[str, Any]]:
    """The plan as it is, or its ratios, rounded or landed, channels by the criterion; its latency where that counts."""
    graph, network = problem.graph, problem.network
    if isinstance(source, PruningPlan):
        mask, told = source.mask(graph), str(source.provenance.get("criterion"))
        if not budget.bounded:
            scores = _scores(problem, told if told in CRITERIA else given.criterion, given.seed)
            # What was cut may be another checkpoint than the plan was made for.
            provenance = {**source.provenance, "dense_weights": problem.weights()}
            return make_plan(graph, mask, network, provenance, scores), {}
        wished = np.array([float(mine.sum()) for mine in graph.split(mask)])
    else:
        wished = ratios_for(graph, source, given.ratios or Path()) * graph.sizes
    landing = open_landing(given, problem, [budget], progress)
    lander = landing.landers[0]
    counts = lander.quantise(np.floor(wished + 0.5)) if not budget.bounded else lander.land(wished[None])[0]
    counts = landing.settle(counts, progress)
    return plan_of(problem, counts, _scores(problem, given.criterion, given.seed), Prune(**wanted)), landing.measured


def _scores(problem: Problem, criterion: str, seed: int) -> np.ndarray:
    return score_channels(criterion, problem.module, problem.graph, problem.calibration(), seed)


def _run_of(given: Prune) -> Search | None:
    """The settings of the run, where the plan is that of a run folder."""
    path = given.plan / "config.yaml" if given.plan is not None else None
    return resolve(Search, {}, path) if path is not None and path.is_file() else None


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
    keys = (("model", "model_args") if given.model is None else ()) + data + CHOICES
    if given.model is None:
        require_named(plan.network.get("model"), given.plan or Path())
    there = settings_of_plan({"model": given.model}, plan)
    return {key: there[key] for key in keys if key in there and getattr(given, key) in (None, False)}
