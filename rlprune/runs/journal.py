"""A table of measured plans that grows by a line as each of them ends, so that nothing measured is ever lost."""

import csv
import math
from pathlib import Path

import numpy as np

from rlprune.errors import UserError
from rlprune.plans.counts import counts_to_text, text_to_key
from rlprune.tasks.base import Evaluation
from rlprune.utils.files import write_text, writing

COLUMNS = ("evaluation", "stage", "loss", "accuracy", "macs_ratio", "params_ratio", "best_loss", "seconds", "counts")
Known = dict[tuple[int, ...], Evaluation]
"""Evaluations by kept counts."""


class Journal:
    """The table, read and appended to.

    Args:
        path: a csv file; a line that was cut short by a crash does not count, and goes when the next one comes.

    Raises:
        UserError: a line of it is not what was written.

    Attributes:
        rows: its lines, as texts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is damaged, it is no text: {error}") from None
        whole = text[: text.rfind("\n") + 1]
        self._torn = whole if whole != text else None
        self.rows: list[dict[str, str]] = list(csv.DictReader(whole.splitlines()))
        for number, row in enumerate(self.rows, start=2):
            try:
                _read(row)
            except (KeyError, TypeError, ValueError, AttributeError):
                fix = "remove that line and all after it, and what they hold is measured again"
                raise UserError(f"{path} is damaged in line {number}: {fix}") from None

    def __len__(self) -> int:
        return len(self.rows)

    def add(
        self,
        counts: np.ndarray,
        evaluation: Evaluation,
        ratios: np.ndarray,
        stage: str,
        best_loss: float | None,
        seconds: float,
    ) -> None:
        """Append what was measured.

        Args:
            counts: (groups,) kept channels.
            evaluation: what was found.
            ratios: (2,) kept fractions of MACs and parameters.
            stage: what it was measured for.
            best_loss: the lowest so far, or None.
            seconds: since the start, or that it took.
        """
        row = {
            "evaluation": str(len(self) + 1),
            "stage": stage,
            "loss": repr(evaluation.loss),
            "accuracy": repr(evaluation.accuracy),
            "macs_ratio": f"{ratios[0]:.6f}",
            "params_ratio": f"{ratios[1]:.6f}",
            "best_loss": "" if best_loss is None else f"{best_loss:.6f}",
            "seconds": f"{seconds:.4f}",
            "counts": counts_to_text(counts),
        }
        if self._torn is not None:
            write_text(self.path, self._torn)
            self._torn = None
        new = not self.path.is_file() or not self.path.stat().st_size
        with writing(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)
        self.rows.append(row)

    def known(self, stage: str | None = None) -> Known:
        """Every evaluation, or those of a stage, by kept counts."""
        return dict(_read(row) for row in self.rows if stage in (None, row["stage"]))

    def seconds(self) -> float:
        """The seconds of the last line."""
        return float(self.rows[-1]["seconds"]) if self.rows else 0.0


def _read(row: dict[str, str]) -> tuple[tuple[int, ...], Evaluation]:
    """The counts and the evaluation of a line; KeyError, TypeError, ValueError or AttributeError where it has none."""
    counts = text_to_key(row["counts"])
    if not counts or row["stage"] is None or not math.isfinite(float(row["seconds"])):
        raise ValueError("counts, stage or seconds")
    return counts, Evaluation(float(row["loss"]), float(row["accuracy"]))
