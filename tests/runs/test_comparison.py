from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from rlprune.errors import UserError
from rlprune.runs.comparison import Cell, ComparisonTables

CELL = Cell("ppo", 0, 0.1 + 0.2, 0.5, 1 / 3, None, 28, 1.5, 0.25, 0.29999, 0.4, "", "3 14 15")
TUNED = replace(CELL, method="amc", seed=3, tuned_accuracy=0.75, remark='it said "no, never"', counts="7")


def test_what_is_entered_is_read_back_exactly(tmp_path: Path) -> None:
    ledger = ComparisonTables(tmp_path)
    assert ("ppo", 0) not in ledger
    ledger.add(CELL, {11: 2.0, 12: 0.1 + 0.2})
    ledger.add(TUNED, {1: 1e-17})
    again = ComparisonTables(tmp_path)
    assert again.cells == [CELL, TUNED]
    assert again.curves == ledger.curves
    assert again.curves[1] == {"method": "ppo", "seed": 0, "evaluation": 12, "best_loss": 0.1 + 0.2}
    assert ("ppo", 0) in again
    assert ("ppo", 3) not in again
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells.csv", "curves.csv"]


def test_other_tools_read_the_tables(tmp_path: Path) -> None:
    ledger = ComparisonTables(tmp_path)
    ledger.add(CELL, {11: 2.0})
    ledger.add(replace(CELL, seed=1, counts="1 2 3"), {11: 3.0})
    cells, curves = (pd.read_csv(tmp_path / name) for name in ("cells.csv", "curves.csv"))
    assert cells["seed"].tolist() == [0, 1]
    assert cells["counts"].tolist() == ["3 14 15", "1 2 3"]
    assert cells["tuned_accuracy"].isna().all()
    assert curves.groupby("seed")["best_loss"].min().tolist() == [2.0, 3.0]


def test_a_curve_whose_cell_was_not_written_any_more_is_dropped(tmp_path: Path) -> None:
    ledger = ComparisonTables(tmp_path)
    ledger.add(CELL, {11: 2.0})
    before = (tmp_path / "cells.csv").read_text()
    ledger.add(TUNED, {1: 1.0})
    (tmp_path / "cells.csv").write_text(before)
    again = ComparisonTables(tmp_path)
    assert again.cells == [CELL]
    assert [row["method"] for row in again.curves] == ["ppo"]


@pytest.mark.parametrize("content", [b"\x80\x04\x95", b"method\nuniform\n", b"method,seed\nuniform,x\n"])
def test_a_damaged_table_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cells.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"cells\.csv is damaged"):
        ComparisonTables(tmp_path)
