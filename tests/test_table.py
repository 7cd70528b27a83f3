"""Tables that people hand back, in every form in which they got them."""

import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlprune.errors import UserError
from rlprune.formats import export_table
from rlprune.plan import PruningPlan
from rlprune.table import read_ratios, read_table, stale_counts


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("table.csv", "group,kept,keep_ratio\n1.10,3,0.5\n1.1,2,1\n"),
        ("table.json", '[{"group": "1.10", "keep_ratio": 0.5}, {"group": "1.1", "keep_ratio": 1}]'),
    ],
)
def test_names_of_layers_are_no_numbers(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_ratios(tmp_path / name) == {"1.10": 0.5, "1.1": 1.0}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("group,ratio\na,0.5\n", "has no column 'keep_ratio'"),
        ("keep_ratio\n0.5\n", "has no column 'group'"),
        ("group,keep_ratio\na,0.5\nb,0\n", "keep ratio '0.0' of 'b' is not in (0, 1]"),
        ("group,keep_ratio\na,1.01\n", "keep ratio '1.01' of 'a'"),
        ("group,keep_ratio\na,half\n", "keep ratio 'half' of 'a'"),
        ("group,keep_ratio\na,\n", "of 'a' is not in (0, 1]"),
        ("group,keep_ratio\na,0.5\na,0.6\n", "names 'a' twice"),
        ("", "is not a readable table"),
        ('group,keep_ratio\na,0.5,1,2\n"', "is not a readable table"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(UserError, match=re.escape(said)):
        read_ratios(tmp_path / "table.csv")


@pytest.mark.parametrize("content", [b"{", b"3", b"\xff\xfe", b'{"a": 1}'])
def test_json_that_is_no_table(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "table.json").write_bytes(content)
    with pytest.raises(UserError, match=r"table\.json (is not a readable table|has no column)"):
        read_ratios(tmp_path / "table.json")


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist: expected a plan"):
        read_ratios(tmp_path / "table.csv")


@pytest.mark.parametrize("format", ["csv", "json", "parquet"])
@given(
    sizes=st.lists(
        st.integers(1, 4096).flatmap(lambda most: st.tuples(st.integers(1, most), st.just(most))), min_size=1
    )
)
def test_what_is_exported_reads_back(
    tmp_path_factory: pytest.TempPathFactory, format: str, sizes: list[tuple[int, int]]
) -> None:
    names = [f"1.{number}0" for number in range(len(sizes))]
    kept = {name: tuple(range(count)) for name, (count, _) in zip(names, sizes, strict=True)}
    channels = {name: most for name, (_, most) in zip(names, sizes, strict=True)}
    plan = PruningPlan(kept, channels, layers={name: (name, f"{name}.tied") for name in names})
    data = export_table(plan.table(), format)
    path = tmp_path_factory.mktemp("tables") / f"table.{format}"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    ratios = read_ratios(path)
    # What a reader makes of the ratios are the counts again.
    assert {name: round(ratios[name] * channels[name]) for name in names} == {
        name: count for name, (count, _) in zip(names, sizes, strict=True)
    }
    assert stale_counts(path) == []
    if format == "csv":
        pd.testing.assert_frame_equal(read_table(path), plan.table())


@pytest.mark.parametrize("kept", ["0", "-1", "9", "2.5", "many"])
def test_kept_counts_that_cannot_be(tmp_path: Path, kept: str) -> None:
    (tmp_path / "table.csv").write_text(f"group,channels,kept,keep_ratio\na,8,4,0.5\nb,8,{kept},0.5\n")
    with pytest.raises(UserError, match=r"table\.csv: kept '.*' of 'b' is no number of its channels$"):
        read_ratios(tmp_path / "table.csv")


def test_the_keep_ratio_counts(tmp_path: Path) -> None:
    # As a spreadsheet leaves it: with a mark in front, the count of an edited ratio behind it, or a cell emptied.
    text = "group,channels,kept,keep_ratio\na,8,4,0.25\nb,8,4,0.5\nc,8,,0.75\nd,3,1,0.333333\ne,9,1,0.001\n"
    (tmp_path / "table.csv").write_text(text, encoding="utf-8-sig")
    assert read_ratios(tmp_path / "table.csv") == {"a": 0.25, "b": 0.5, "c": 0.75, "d": 0.333333, "e": 0.001}
    assert stale_counts(tmp_path / "table.csv") == ["a"]


def test_parquet_that_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "table.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"table\.parquet is not a readable table"):
        read_ratios(tmp_path / "table.parquet")
