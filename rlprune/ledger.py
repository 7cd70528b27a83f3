"""The cells of a comparison, one for every method and seed, and their curves: two tables that grow as cells end."""

import csv
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from rlprune.errors import UserError
from rlprune.files import write_text


@dataclass(frozen=True)
class Cell:
    """What one method with one seed ended with.

    Attributes:
        method, seed: which run it was.
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


READ: dict[Any, Callable[[str], Any]] = {
    str: str,
    int: int,
    float: float,
    float | None: lambda text: float(text) if text else None,
}
CURVES = {"method": str, "seed": int, "evaluation": int, "best_loss": float}


class Ledger:
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
