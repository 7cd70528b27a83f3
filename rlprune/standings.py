"""From the cells of a comparison to means and spreads over the seeds, and to one sentence on who is ahead."""

import math
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from rlprune.ledger import Cell
from rlprune.settings import AGENTS

MEASURED = (
    "search_loss", "search_accuracy", "test_accuracy", "tuned_accuracy", "evaluations", "seconds", "macs_ratio",
    "params_ratio",
)  # fmt: skip
Standing = dict[str, Any]


def standings(cells: Sequence[Cell]) -> list[Standing]:
    """One record a method, the lowest mean search loss first.

    Every measure has its mean over the seeds under its name and its sample standard deviation under its name with
    ``_sd``, which is None for a single seed; both are None where it was not measured. `own_share` is the share of the
    time that was not spent in evaluations, `remarks` are those of the cells.
    """
    records = []
    for method in dict.fromkeys(cell.method for cell in cells):
        mine = [cell for cell in cells if cell.method == method]
        record: Standing = {"method": method, "seeds": len(mine)}
        for name in MEASURED:
            values = [getattr(cell, name) for cell in mine]
            known = None not in values
            record[name] = float(mean(values)) if known else None
            record[f"{name}_sd"] = float(stdev(values)) if known and len(values) > 1 else None
        record["own_share"] = sum(cell.own_seconds for cell in mine) / sum(cell.seconds for cell in mine)
        record["remarks"] = [f"{method}, seed {cell.seed}: {cell.remark}" for cell in mine if cell.remark]
        records.append(record)
    return sorted(records, key=lambda record: record["search_loss"])


def verdict(records: Sequence[Standing]) -> str:
    """Who is ahead on the test images, in plain words; empty for a single method.

    Agents compete with everything else; where there is nothing else, or no agent, the method with the lowest search
    loss competes with the others. Of the agents the one with the lowest search loss stands for all, its rival is the
    one that is best on the test images, which is the hardest choice. The spread is the standard deviation of the
    difference between two runs.

    Args:
        records: as `standings` returns them.
    """
    agents = [record for record in records if record["method"] in AGENTS]
    others = [record for record in records if record["method"] not in AGENTS]
    if not (agents and others):
        agents, others = list(records[:1]), list(records[1:])
    if not others:
        return ""
    tuned = records[0]["tuned_accuracy"] is not None
    key = "tuned_accuracy" if tuned else "test_accuracy"
    ours, rival = agents[0], max(others, key=lambda record: record[key])
    points = 100 * (ours[key] - rival[key])
    spread = None if ours[f"{key}_sd"] is None else 100 * math.hypot(ours[f"{key}_sd"], rival[f"{key}_sd"])
    unit = f"points of {'fine-tuned ' if tuned else ''}test accuracy"
    return _sentence(ours["method"], rival["method"], points, spread, unit)


def _sentence(ours: str, rival: str, points: float, spread: float | None, unit: str) -> str:
    if spread is None:
        place = "ahead of" if points > 0 else "behind" if points < 0 else "level with"
        by = f"{abs(points):.1f} {unit} " if points else ""
        return f"{ours} is {by}{place} the best rival ({rival}); one seed tells no spread"
    by = f"{abs(points):.1f} ± {spread:.1f} {unit}"
    if points > spread:
        return f"{ours} beats the best rival ({rival}) by {by}"
    if -points > spread:
        return f"{ours} does not beat the best rival ({rival}): it is behind by {by}"
    place = "ahead" if points >= 0 else "behind"
    return f"{ours} does not beat the best rival ({rival}): {place} by {by}, within the spread of the seeds"
