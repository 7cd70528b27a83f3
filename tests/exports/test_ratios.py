"""The export of tables, read back by other readers."""

import csv
import io
import json
import sys

import pandas as pd
import pyarrow.parquet
import pytest

from rlprune.errors import UserError
from rlprune.exports.ratios import export_table

EVIL = '</text><script>alert("x")</script>'
TABLE = pd.DataFrame(
    {
        "group": ["0.10", "layer1_0", "null", EVIL],
        "tied": [0, 2, 0, 0],
        "channels": [16, 32, 64, 8],
        "kept": [12, 11, 40, 1],
        "keep_ratio": [0.75, 0.34375, 0.625, 0.125],
        "macs_saved_alone": [0.1, 0.0271, 1 / 3, 0.5],
        "params_saved_alone": [0.2, 0.3, 0.4, 0.0123],
    }
)


def test_csv_reads_back() -> None:
    text = export_table(TABLE, "csv")
    assert isinstance(text, str)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0]) == list(TABLE.columns)
    assert [row["group"] for row in rows] == list(TABLE["group"])
    assert [float(row["macs_saved_alone"]) for row in rows] == list(TABLE["macs_saved_alone"])
    assert "\r" not in text


def test_json_reads_back() -> None:
    rows = json.loads(export_table(TABLE, "json"))
    for row, expected in zip(rows, TABLE.to_dict("records"), strict=True):
        assert row == pytest.approx(expected)


def test_parquet_reads_back() -> None:
    data = export_table(TABLE, "parquet")
    assert isinstance(data, bytes)
    read = pyarrow.parquet.read_table(io.BytesIO(data))
    assert read.to_pydict() == TABLE.to_dict("list")


def test_markdown_keeps_names_that_look_like_numbers() -> None:
    text = export_table(TABLE, "md")
    assert isinstance(text, str)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.strip().splitlines()]
    assert rows[0] == list(TABLE.columns)
    assert [row[0] for row in rows[2:]] == list(TABLE["group"])
    assert [float(row[4]) for row in rows[2:]] == list(TABLE["keep_ratio"])


def test_latex_is_a_booktabs_table_with_escapes() -> None:
    text = export_table(TABLE.head(2), "latex")
    assert isinstance(text, str)
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    assert r"group & tied & channels & kept & keep\_ratio & macs\_saved\_alone & params\_saved\_alone \\" in text
    assert r"layer1\_0 & 2 & 32 & 11 & 0.344 & 0.027 & 0.300 \\" in text


def test_an_unknown_format_names_the_known_ones() -> None:
    said = r"unknown format 'latx': did you mean 'latex'\? known: amc, csv, html, json, latex, md, nni"
    with pytest.raises(UserError, match=said):
        export_table(TABLE, "latx")


def test_parquet_without_pyarrow_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "pyarrow"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"pip install 'rlprune\[parquet\]'"):
        export_table(TABLE, "parquet")
