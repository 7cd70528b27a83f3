"""Every criterion and every simple allocator on its own: seconds, and accuracy right after pruning, repaired and not.

    python scripts/benchmarks/methods.py --data folder:PATH --checkpoints FOLDER --out FOLDER

Criteria get the uniform plan, so that nothing but what they do differs; allocators that take no more than the
sensitivities get the L1 criterion. Nothing is fine-tuned; `repairs.py` tells more of repairs. FOLDER of
the checkpoints holds vgg16.safetensors (width 0.25) and resnet20.safetensors. What was measured is not measured again.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import grow, keep

from rlprune import registry
from rlprune.agents.search.setup import make_evaluator
from rlprune.cost.budget import parse_budget
from rlprune.cost.projection import BudgetProjector
from rlprune.errors import UserError
from rlprune.evaluation.metered import AllocationProblem, EvaluationCache
from rlprune.methods.allocators.uniform import uniform
from rlprune.methods.criteria.base import score_channels
from rlprune.methods.recovery.base import USUAL, Repairs
from rlprune.plans.counts import top_mask
from rlprune.training.loop import evaluate
from rlprune.utils.progress import Progress
from rlprune.workloads.workload import Workload, open_workload

NETWORKS = {"vgg16 ×0.25": ("vgg16", "width=0.25"), "resnet20": ("resnet20", None)}
BUDGETS = (0.5, 0.3)
REPAIRED = f"reconstruct,{USUAL}"
WHAT = ("accuracy", "repaired")
"""With recalibrated batch norm alone, and with least squares of the next layers, too."""
SEARCHES = ("random", "evolution", "cma-es", "amc", "mutate", "ppo-frozen", *registry.names("agent"))
"""Allocators that other tables are about."""


def main() -> None:
    """Measure what is left, and keep all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder:PATH with train/ and test/")
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the figures on the way")
    given = parser.parse_args()
    for label, (model, args) in NETWORKS.items():
        path = given.out / f"{model}.csv"
        known = (
            {(row["kind"], row["name"]) for row in pd.read_csv(path).to_dict("records")} if path.is_file() else set()
        )
        settings = {"model": model, "model_args": args, "data": given.data}
        checkpoint = given.checkpoints / f"{model}.safetensors"
        workload = open_workload(settings | {"checkpoint": checkpoint}, Progress())
        for row in measured(workload, known):
            grow(path, {"network": label, **row})
            print(row)
    tables = [pd.read_csv(path) for path in sorted(given.out.glob("*.csv"))]
    rows = pd.concat(tables).to_dict("records")
    keep("methods", {"rows": [{key: None if value != value else value for key, value in row.items()} for row in rows]})


def measured(workload: Workload, known: set[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """A row a method and budget, as far as it applies to the network."""
    projectors = [BudgetProjector(workload.cost, parse_budget(share)) for share in BUDGETS]
    for name in registry.names("criterion"):
        if ("criterion", name) not in known:
            yield {"kind": "criterion", "name": name, **_criterion(workload, projectors, name)}
    for name in registry.names("allocator"):
        if name not in SEARCHES and ("allocator", name) not in known:
            yield {"kind": "allocator", "name": name, **_allocator(workload, projectors, name)}


def _criterion(workload: Workload, projectors: list[BudgetProjector], name: str) -> dict[str, Any]:
    start = time.perf_counter()
    try:
        scores = scored(workload, name)
    except UserError as error:
        return _nothing(str(error))
    seconds = time.perf_counter() - start
    return _row(seconds, [_accuracies(workload, uniform(each), scores) for each in projectors])


def _allocator(workload: Workload, projectors: list[BudgetProjector], name: str) -> dict[str, Any]:
    evaluator = make_evaluator(workload, "l1", 0)
    start, accuracies = time.perf_counter(), []
    for projector in projectors:
        needed = registry.make("allocator", name).evaluations_needed(len(workload.graph.groups), projector.budget)
        cache = EvaluationCache(evaluator, score=lambda criterion: scored(workload, criterion))
        problem = AllocationProblem(cache, workload, projector, name, 0, needed)
        try:
            counts = registry.make("allocator", name).allocate(problem).counts
        except UserError as error:
            return _nothing(str(error))
        accuracies.append(_accuracies(workload, counts, evaluator.scores))
    return _row((time.perf_counter() - start) / len(projectors), accuracies)


def scored(workload: Workload, criterion: str) -> np.ndarray:
    """(all groups' channels,) scores by a criterion of the dense network."""
    return score_channels(criterion, workload.module, workload.graph, workload.calibration())


def _accuracies(workload: Workload, counts: np.ndarray, scores: np.ndarray) -> list[float]:
    """On the test images, which nothing here is chosen by: with recalibrated batch norm alone, and repaired."""
    mask, found = top_mask(workload.graph, counts, scores), []
    for repairs in (USUAL, REPAIRED):
        smaller = Repairs(repairs, workload.module, workload.graph, workload.calibration()[0]).cut(mask)
        found.append(evaluate(smaller, workload.data.test, device=workload.device)[1])
    return found


def _row(seconds: float, accuracies: list[list[float]]) -> dict[str, Any]:
    pairs = zip(BUDGETS, accuracies, strict=True)
    named = {f"{what}_{budget:g}": value for budget, each in pairs for what, value in zip(WHAT, each, strict=True)}
    return {"seconds": seconds, **named, "remark": ""}


def _nothing(remark: str) -> dict[str, Any]:
    return _row(np.nan, [[np.nan, np.nan] for _ in BUDGETS]) | {"remark": remark}


def methods_table(figures: dict[str, Any]) -> str:
    """A row a method, two columns a network, and what its paper claims."""
    networks = list(dict.fromkeys(row["network"] for row in figures["rows"]))
    head = [f"{network}, {100 * budget:g} %" for network in networks for budget in BUDGETS]
    parts = [
        "**Right after pruning, nothing fine-tuned: test accuracy in % / the same with `--repair reconstruct,bn`, of "
        "criteria on the uniform plan and of allocators with L1; seconds of the first network** "
        "(`python scripts/benchmarks/methods.py`)"
    ]
    for kind in dict.fromkeys(row["kind"] for row in figures["rows"]):
        claims = {row["name"]: row["claim"] for row in registry.describe(kind)}
        rows = [row for row in figures["rows"] if row["kind"] == kind]
        lines = [f"| {kind} | seconds | " + " | ".join(head) + " | the paper claims |", "|---" * (len(head) + 3) + "|"]
        for name in dict.fromkeys(row["name"] for row in rows):
            mine = [next(row for row in rows if (row["name"], row["network"]) == (name, each)) for each in networks]
            cells = [
                " / ".join(_percent(row[f"{what}_{budget:g}"]) for what in WHAT) for row in mine for budget in BUDGETS
            ]
            seconds = next((f"{row['seconds']:.1f}" for row in mine if row["seconds"] is not None), "–")
            lines.append(f"| `{name}` | {seconds} | " + " | ".join(cells) + f" | {claims.get(name, '')} |")
        parts.append("\n".join(lines))
    absent = {row["name"]: row["remark"] for row in figures["rows"] if row["remark"]}
    parts += [f"`{name}`: {remark}" for name, remark in absent.items()]
    return "\n\n".join(parts)


def _percent(accuracy: float | None) -> str:
    return "–" if accuracy is None else f"{100 * accuracy:.1f}"


if __name__ == "__main__":
    main()
