"""The cells of a comparison, one for every method and seed, and their curves: two tables that grow as cells end."""

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pandas as pd

from rlprune import registry
from rlprune.errors import UserError
from rlprune.utils.files import write_text


@dataclass(frozen=True)
class Cell:
    """What one method with one seed ended with.

    Attributes:
        method, seed: which run it was; see `label_of`.
        search_loss, search_accuracy: of its best plan, on the search images.
        test_accuracy: of the same plan, one-shot after recalibration.
        tuned_accuracy: after fine-tuning, on the test images, or None.
        evaluations: plans that were measured.
        seconds: from start to end, as if every evaluation had been run for this method alone.
        own_seconds: the part of them that was not spent in evaluations.
        macs_ratio, params_ratio: what is kept.
        remark: what went wrong, such as a policy that collapsed, or empty.
        counts: kept channels of every group, with spaces between them.
    """

    method: str
    seed: int
    search_loss: float
    search_accuracy: float
    test_accuracy: float
    tuned_accuracy: float | None
    evaluations: int
    seconds: float
    own_seconds: float
    macs_ratio: float
    params_ratio: float
    remark: str
    counts: str


def label_of(method: str, criterion: str | None) -> str:
    """What the runs of a method are called, in the grid of methods and criteria with the criterion: ``uniform@l1``."""
    return method if criterion is None else f"{method}@{criterion}"


def name_of(label: str) -> str:
    """The method's name without its settings and its criterion."""
    return label.partition("@")[0].partition(":")[0]


READ: dict[Any, Callable[[str], Any]] = {
    str: str,
    int: int,
    float: float,
    float | None: lambda text: float(text) if text else None,
}
CURVES = {"method": str, "seed": int, "evaluation": int, "best_loss": float}


class ComparisonTables:
    """`cells.csv` and `curves.csv` of a folder.

    Args:
        folder: where they are; what it holds already is read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        types = {entry.name: READ[entry.type] for entry in fields(Cell)}
        self.cells = [Cell(**row) for row in _read(folder / "cells.csv", types)]
        # The curve of a cell is written first: one without a cell is that of an interrupted one.
        self.curves = [row for row in _read(folder / "curves.csv", CURVES) if (row["method"], row["seed"]) in self]

    def __contains__(self, cell: tuple[str, int]) -> bool:
        return any((known.method, known.seed) == cell for known in self.cells)

    def add(self, cell: Cell, curve: Mapping[int, float]) -> None:
        """Enter a cell that has ended.

        Args:
            cell: its result.
            curve: evaluations -> best loss after so many.
        """
        who = {"method": cell.method, "seed": cell.seed}
        self.curves += [who | {"evaluation": number, "best_loss": loss} for number, loss in curve.items()]
        self.cells.append(cell)
        write_text(self.folder / "curves.csv", pd.DataFrame(self.curves).to_csv(index=False, lineterminator="\n"))
        table = pd.DataFrame([asdict(known) for known in self.cells])
        write_text(self.folder / "cells.csv", table.to_csv(index=False, lineterminator="\n"))


def _read(path: Path, types: Mapping[str, Callable[[str], Any]]) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [{name: read(row[name]) for name, read in types.items()} for row in csv.DictReader(file)]
    except (LookupError, TypeError, ValueError, csv.Error) as error:
        raise UserError(f"{path} is damaged, remove its folder to start over: {error!r}") from None


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
    agents = [record for record in records if name_of(record["method"]) in registry.names("agent")]
    others = [record for record in records if record not in agents]
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
