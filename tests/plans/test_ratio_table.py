"""Tables that people hand back, in every form in which they got them."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlprune.errors import UserError
from rlprune.exports.ratios import export_table
from rlprune.graph.structure import Block, Graph, Group
from rlprune.plans.counts import top_mask
from rlprune.plans.plan import PruningPlan, make_plan
from rlprune.plans.ratio_table import ratios_for, read_ratios, read_table, stale_counts


def ratios_in(path: Path) -> dict[str, float]:
    table = read_ratios(path)
    return dict(zip(table["group"], table["keep_ratio"], strict=True))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("table.csv", "group,kept,keep_ratio\n1.10,3,0.5\n1.1,2,1\n"),
        ("table.json", '[{"group": "1.10", "keep_ratio": 0.5}, {"group": "1.1", "keep_ratio": 1}]'),
    ],
)
def test_names_of_layers_are_no_numbers(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert ratios_in(tmp_path / name) == {"1.10": 0.5, "1.1": 1.0}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("group,ratio\na,0.5\n", "has no column 'keep_ratio'"),
        ("keep_ratio\n0.5\n", "has no column 'group'"),
        ("group,keep_ratio\na,0.5\nb,-0.1\n", "keep ratio '-0.1' of 'b' is not in (0, 1]"),
        ("group,keep_ratio\na,1.01\n", "keep ratio '1.01' of 'a'"),
        ("group,keep_ratio\na,half\n", "keep ratio 'half' of 'a'"),
        ("group,keep_ratio\na,\n", "of 'a' is not in (0, 1]"),
        ("group,keep_ratio\na,0.5\na,0.5\n", "names 'a' twice: give it once"),
        ("group,keep_ratio\na,0.5\nb,1\na,0.6\n", "gives 'a' the ratios 0.5 and 0.6: its layers are tied and keep the"),
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
    with pytest.raises(UserError, match="does not exist: expected a table of ratios"):
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
    ratios = ratios_in(path)
    # What a reader makes of the ratios are the counts again.
    assert {name: round(ratios[name] * channels[name]) for name in names} == {
        name: count for name, (count, _) in zip(names, sizes, strict=True)
    }
    assert stale_counts(read_ratios(path)) == []
    if format == "csv":
        pd.testing.assert_frame_equal(read_table(path), plan.table())


@pytest.mark.parametrize("kept", ["-1", "9", "2.5", "many"])
def test_kept_counts_that_cannot_be(tmp_path: Path, kept: str) -> None:
    (tmp_path / "table.csv").write_text(f"group,channels,kept,keep_ratio\na,8,4,0.5\nb,8,{kept},0.5\n")
    with pytest.raises(UserError, match=r"table\.csv: kept '.*' of 'b' is no number of its channels$"):
        read_ratios(tmp_path / "table.csv")


def test_the_keep_ratio_counts(tmp_path: Path) -> None:
    # As a spreadsheet leaves it: with a mark in front, the count of an edited ratio behind it, or a cell emptied.
    text = "group,channels,kept,keep_ratio\na,8,4,0.25\nb,8,4,0.5\nc,8,,0.75\nd,3,1,0.333333\ne,9,1,0.001\n"
    (tmp_path / "table.csv").write_text(text, encoding="utf-8-sig")
    assert ratios_in(tmp_path / "table.csv") == {"a": 0.25, "b": 0.5, "c": 0.75, "d": 0.333333, "e": 0.001}
    assert stale_counts(read_ratios(tmp_path / "table.csv")) == ["a"]


def test_a_ratio_of_zero_takes_out_a_block(tmp_path: Path) -> None:
    """Both inner groups say so; the kept count of a block that was out before may lag behind."""
    inner = [Group(f"b.{number}", 4, 4 * number, (f"b.{number}",), ()) for number in range(2)]
    graph = Graph((*inner, Group("c", 3, 8, ("c",), ())), (), (), (), {}, {}, (Block("b", (0, 1)),))
    path = tmp_path / "table.csv"

    def ratios(*rows: str) -> list[float]:
        path.write_text("\n".join(["group,channels,kept,keep_ratio", *rows]))
        return ratios_for(graph, read_ratios(path), path).tolist()

    assert ratios("b.0,4,4,0", "b.1,4,0,0", "c,3,0,1") == [0, 0, 1]
    assert stale_counts(read_ratios(path)) == ["b.0", "c"]
    with pytest.raises(UserError, match=r"table\.csv: 'b\.1' keeps no channel: the block 'b' goes whole or not at all"):
        ratios("b.0,4,4,0.01", "b.1,4,4,0", "c,3,3,1")
    with pytest.raises(UserError, match=r"table\.csv: 'c' keeps no channel, and it belongs to no residual block"):
        ratios("b.0,4,4,1", "b.1,4,4,1", "c,3,3,0")


def test_parquet_that_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "table.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"table\.parquet is not a readable table"):
        read_ratios(tmp_path / "table.parquet")


def graph_of(sizes: list[int]) -> Graph:
    """Groups of these sizes, each of two tied layers."""
    starts = np.cumsum([0, *sizes])
    groups = tuple(
        Group(f"1.{n}0", size, int(start), (f"1.{n}0", f"tied.{n}"), ())
        for n, (size, start) in enumerate(zip(sizes, starts, strict=False))
    )
    layers = {layer: 1 for group in groups for layer in group.producers}
    return Graph(groups, (), (), (), layers, {})


@pytest.mark.parametrize("format", ["csv", "json", "parquet"])
@given(sizes=st.lists(st.integers(2, 300), min_size=1, max_size=5), data=st.data())
def test_table_to_plan_to_table_is_the_identity(
    tmp_path_factory: pytest.TempPathFactory, format: str, sizes: list[int], data: st.DataObject
) -> None:
    """With the same scores even the importance; what a cut foretells is not known to whoever reads a table."""
    graph = graph_of(sizes)
    counts = np.array([data.draw(st.integers(1, size)) for size in sizes])
    scores = np.random.default_rng(0).random(sum(sizes))
    folder = tmp_path_factory.mktemp("tables")

    def written(plan: PruningPlan, name: str) -> Path:
        content = export_table(plan.table(), format)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return folder / name

    plan = make_plan(graph, top_mask(graph, counts, scores), scores=scores)
    first = written(plan, f"first.{format}")
    ratios = ratios_for(graph, read_ratios(first), first)
    # As prune rounds them.
    again = np.floor(ratios * graph.sizes + 0.5).astype(int)
    second = make_plan(graph, top_mask(graph, again, scores), scores=scores)
    assert second == plan
    assert written(second, f"second.{format}").read_bytes() == first.read_bytes()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("group,keep_ratio\n1.00,0.5\n", "it says nothing about '1.10'"),
        ("group,keep_ratio\n1.00,0.5\n1.1,0.5\n", "unknown group '1.1': did you mean '1.10'"),
        (
            "group,keep_ratio\n1.00,1\ntied.0,0.5\n1.10,1\n",
            "has a row for 'tied.0', which is tied to '1.00' and has no",
        ),
        ("group,channels,keep_ratio\n1.00,9,1\n1.10,4,1\n", "'1.00' has 8 channels"),
        ("group,channels,keep_ratio\n1.00,8,1\n1.10,inf,1\n", "channels 'inf' of '1.10' is no number of channels"),
        ("group,keep_ratio,layers\n1.00,1,1.00\n1.10,1,\n", "leaves 'tied.0' out of '1.00', but it is tied to it"),
        (
            "group,keep_ratio,layers\n1.00,1,1.00 tied.0 tied.1\n1.10,1,1.10\n",
            "lists 'tied.1' under '1.00', but it is tied to '1.10'",
        ),
        ("group,keep_ratio,layers\n1.00,1,1.00 tied.0 head\n1.10,1,\n", "lists 'head' under '1.00', but it makes no"),
    ],
)
def test_edits_that_do_not_fit_the_network(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(said)):
        ratios_for(graph_of([8, 4]), read_ratios(path), path)


def test_the_order_of_rows_and_of_layers_is_free(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("group,keep_ratio,layers,channels\n1.10,0.5,,\n1.00,0.25,tied.0 1.00,8\n")
    assert ratios_for(graph_of([8, 4]), read_ratios(path), path).tolist() == [0.25, 0.5]
