"""From the kept counts of a search to a plan and its files."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rlprune.config.options import USUAL_REPAIR, Settings
from rlprune.config.resolve import as_dict
from rlprune.evaluation.sensitivity import Sensitivity
from rlprune.plans.counts import top_mask
from rlprune.plans.plan import PruningPlan, make_plan
from rlprune.plans.ratio_table import ratio_table
from rlprune.utils.files import write_text
from rlprune.workloads.workload import KEPT, Workload


def plan_of(
    workload: Workload, counts: np.ndarray, scores: np.ndarray, given: Settings, sensitivity: Sensitivity | None = None
) -> PruningPlan:
    """The plan that keeps the best-scoring channels, with what it needs to be used without its run.

    Args:
        workload: the dense network.
        counts: (groups,) kept channels.
        scores: (all groups' channels,) of the criterion.
        given: the settings that led to it.
        sensitivity: the network's own curves, where they were measured.
    """
    rises = None if sensitivity is None else np.array(sensitivity.parts(counts / workload.graph.sizes))
    mask = top_mask(workload.graph, counts, scores)
    return make_plan(workload.graph, mask, workload.network, provenance_of(workload, given), scores, rises)


def provenance_of(workload: Workload, given: Settings) -> dict[str, Any]:
    """Where a plan comes from, and what it needs to be used without its run."""
    settings = as_dict(given)
    data = {key: settings[key] for key in KEPT if settings.get(key) not in (None, False)}
    repair = settings.get("repair")
    return {
        "budget": str(settings.get("budget")),
        "criterion": settings.get("criterion"),
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
