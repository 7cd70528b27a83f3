"""From the kept counts of a search to a plan and its files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rlprune.config.options import USUAL_REPAIR, Settings
from rlprune.config.resolve import as_dict
from rlprune.evaluation.sensitivity import Sensitivity
from rlprune.methods.criteria.base_choice import criteria_of
from rlprune.methods.units.channel import Channel
from rlprune.plans.counts import scores_of, top_mask
from rlprune.plans.plan import PruningPlan, make_plan
from rlprune.plans.ratio_table import ratio_table
from rlprune.utils.criteria import DEFAULT
from rlprune.utils.files import write_text
from rlprune.workloads.workload import KEPT, Workload


def plan_of(
    workload: Workload, counts: np.ndarray, scores: np.ndarray, given: Settings, sensitivity: Sensitivity | None = None
) -> PruningPlan:
    """The plan that keeps the best-scoring channels, with what it needs to be used without its run.

    Args:
        workload: the dense network.
        counts: (groups,) kept channels, and what stands behind them in plans of a search.
        scores: (all groups' channels,) of the criterion, or (criteria, all groups' channels).
        given: the settings that led to it.
        sensitivity: the network's own curves, where they were measured.
    """
    graph, settings = workload.graph, as_dict(given)
    keep = counts[: len(graph.groups)] / graph.sizes
    rises = None if sensitivity is None else np.array(sensitivity.parts(keep))
    mask, mine = top_mask(graph, counts, scores), scores_of(graph, counts, scores)
    # Scores say nothing of slices, which stay by how little they are alike.
    known = mine if isinstance(workload.unit, Channel) else None
    plan = make_plan(graph, mask, workload.network, provenance_of(workload, given), known, rises)
    return workload.complete(replace(plan, criteria=criteria_of(settings.get("criterion") or DEFAULT, graph, counts)))


def provenance_of(workload: Workload, given: Settings) -> dict[str, Any]:
    """Where a plan comes from, and what it needs to be used without its run."""
    settings = as_dict(given)
    data = {key: settings[key] for key in KEPT if settings.get(key) not in (None, False)}
    repair = settings.get("repair")
    return {
        "budget": str(settings.get("budget")),
        # Of other units the criterion has no say.
        **{name: settings.get(name) for name in (["criterion"] if isinstance(workload.unit, Channel) else ["unit"])},
        "dense_weights": workload.weights(),
        "data_settings": data,
        # Where it is what goes without saying the file is as it always was.
        **({} if repair in (None, USUAL_REPAIR) else {"repair": repair}),
    }


def save_plan(workload: Workload, plan: PruningPlan, folder: Path) -> pd.DataFrame:
    """Write `plan.json` and `ratios.csv`; returns the ratio table."""
    plan.save(folder / "plan.json")
    table = ratio_table(workload.graph, workload.cost, plan)
    write_text(folder / "ratios.csv", table.to_csv(index=False))
    return table
