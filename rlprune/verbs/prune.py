"""`rlprune prune`."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from rlprune.budget import Budget, parse_budget
from rlprune.choice import CHOICES
from rlprune.config import Prune, Search, as_dict, resolve
from rlprune.criteria import score_channels
from rlprune.errors import UserError
from rlprune.evaluator import recalibrate
from rlprune.files import check_new, new_folder
from rlprune.finish import costs, described, plan_of, save_pruned, sizes
from rlprune.landing import open_landing
from rlprune.plan import PruningPlan, check_same_groups, make_plan, ratio_table
from rlprune.problem import DATA_SETTINGS, Problem, open_problem, settings_of_plan, train_dense
from rlprune.progress import Progress
from rlprune.pruner import prune as cut
from rlprune.table import read_ratios, stale_counts
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
    source = given.plan / "plan.json" if given.plan.is_dir() else given.plan
    known = _read_plan(source)
    run = _run_of(given)
    wanted = as_dict(given) | _network_settings(known, given)
    if wanted["checkpoint"] is None:
        if run is None:
            raise UserError("--checkpoint is missing: name the file with the dense network's weights")
        wanted["checkpoint"] = run.checkpoint
    out = check_new(given.out or Path(f"{given.plan.resolve().stem}-pruned"))
    problem = open_problem(wanted, progress)
    if run is not None and wanted["checkpoint"] is None:
        train_dense(problem, run, run.train_epochs, progress)
    plan, latency = _plan(given, known, source, problem, budget, wanted, progress)
    if known is None and (stale := stale_counts(source)):
        progress.note(f"{source}: keep_ratio counts, and not the other kept count of {', '.join(stale)}")
    smaller = cut(problem.module, problem.graph, plan.mask(problem.graph))
    recalibrate(smaller, problem.calibration()[0])
    save_pruned(smaller, plan, new_folder(out))
    latency = latency or quick_latency(problem.module, smaller, problem.data.image_size)
    return {
        "pruned": str(out),
        "plan": str(out / "plan.json"),
        **described([budget], problem, time.perf_counter() - start),
        **costs(problem, plan.counts()),
        **sizes(problem.module, out),
        "latency": latency,
        "table": ratio_table(problem.graph, problem.cost, plan.counts()).to_dict("records"),
    }


def _plan(
    given: Prune,
    known: PruningPlan | None,
    source: Path,
    problem: Problem,
    budget: Budget,
    wanted: dict[str, Any],
    progress: Progress,
) -> tuple[PruningPlan, dict[str, Any]]:
    """The plan as it is, or its ratios, rounded or landed, channels by the criterion; its latency where that counts."""
    if known is not None and not budget.bounded:
        return make_plan(problem.graph, known.mask(problem.graph), problem.network, known.provenance), {}
    ratios = read_ratios(source) if known is None else known.ratios()
    sizes = {group.name: group.channels for group in problem.graph.groups}
    check_same_groups({name: sizes.get(name, 0) for name in ratios}, problem.graph, "the table")
    wished = np.array([ratios[group.name] * group.channels for group in problem.graph.groups])
    landing = open_landing(given, problem, [budget], progress)
    lander = landing.landers[0]
    counts = lander.quantise(np.floor(wished + 0.5)) if not budget.bounded else lander.land(wished[None])[0]
    counts = landing.settle(counts, progress)
    scores = score_channels(given.criterion, problem.module, problem.graph, problem.calibration(), given.seed)
    return plan_of(problem, counts, scores, Prune(**wanted)), landing.measured


def _run_of(given: Prune) -> Search | None:
    """The settings of the run, where the plan is that of a run folder."""
    path = given.plan / "config.yaml"
    return resolve(Search, {}, path) if given.plan.is_dir() and path.is_file() else None


def _read_plan(path: Path) -> PruningPlan | None:
    """The plan in a file, or None where the file is a table of ratios."""
    if not path.is_file():
        raise UserError(f"--plan {path} does not exist: expected plan.json, a run folder or a table of ratios")
    if path.suffix != ".json" or path.read_text(encoding="utf-8", errors="replace").lstrip().startswith("["):
        return None
    return PruningPlan.load(path)


def _network_settings(plan: PruningPlan | None, given: Prune) -> dict[str, Any]:
    """Model and data of a plan wherever the settings leave them open."""
    if plan is None:
        if given.model is None:
            raise UserError("--model is missing: a table of ratios does not say which network it is for")
        return {}
    data = (*DATA_SETTINGS, "seed") if given.data is None else ()
    keys = (("model", "model_args") if given.model is None else ()) + data + CHOICES
    there = settings_of_plan({"model": given.model}, plan)
    return {key: there[key] for key in keys if key in there and getattr(given, key) in (None, False)}
