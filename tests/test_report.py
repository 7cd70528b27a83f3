"""The page of a run and the export of tables, read back by other readers."""

import csv
import io
import json
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pyarrow.parquet
import pytest
from samples import RESULT

from rlprune.errors import UserError
from rlprune.plots import PAGE_COLOURS
from rlprune.report import export_table, write_run_report

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
FILES = {
    "result.json": json.dumps(RESULT),
    "ratios.csv": TABLE.to_csv(index=False),
    "episodes.csv": "evaluation,stage,loss,accuracy,macs_ratio,params_ratio,best_loss,seconds\n"
    "1,sensitivity,2.5,0.2,0.9,0.9,,1\n2,start,2.1,0.3,0.3,0.1,2.1,2\n3,search,2.2,0.3,0.3,0.1,2.1,3\n",
    "finetune.csv": "epoch,loss,accuracy,lr,seconds\n1,1.2,0.5,0.01,3\n2,0.9,0.7,0.001,6\n",
    "config.yaml": "model: vgg16\nseed: 0\n",
    "command.txt": "rlprune search --model '<img src=x onerror=alert(1)>'\n",
    "environment.json": json.dumps({"torch": "2.9.0", "<b>python</b>": "3.11"}),
}
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags, attributes and texts as a browser would meet them; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data.replace("\u00a0", " ")

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def page(folder: Path) -> Page:
    write_run_report(folder)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_the_page_says_the_three_things_and_shows_everything(folder: Path) -> None:
    text = page(folder).text
    for words in (
        "vgg16 on cifar10: keep ≤ 30 % of the MACs (remove ≥ 70 %)",
        "83.12 % → 79.84 %",
        "one-shot before fine-tuning 38.20 %",
        "19.7 M → 5.90 M",
        "kept 30.0 %, removed 70.0 %; params 923 k → 114 k",
        "runs/r",
        "34.4 %",  # keep ratio of layer1_0
        "33.3 %",  # MACs it would save alone
        "model: vgg16\nseed: 0",
        "rlprune search --model '<img src=x onerror=alert(1)>'",
        "torch",
        "2.9.0",
    ):
        assert words in text


def test_the_table_has_a_row_a_group_and_header_cells(folder: Path) -> None:
    there = page(folder)
    assert [cell.get("scope") for cell in there.named("th")].count("col") == 7
    for name in TABLE["group"]:
        assert there.text.count(name) == 2  # in the chart and in the table


def test_what_the_files_say_is_text_never_markup(folder: Path) -> None:
    there = page(folder)
    assert not {"script", "img", "b"} & {name for name, _ in there.tags}
    assert EVIL in there.text
    assert "<b>python</b>" in there.text


def test_nothing_is_loaded_from_elsewhere(folder: Path) -> None:
    there = page(folder)
    assert not {"script", "link", "iframe", "object", "image"} & {name for name, _ in there.tags}
    for _, attributes in there.tags:
        assert "src" not in attributes
        for link in ("href", "xlink:href"):
            assert (attributes.get(link) or "#").startswith("#")
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert not any(word in html for word in ("http://", "https://", "@import", "url(//"))


def test_the_page_is_accessible_and_knows_dark_and_phones(folder: Path) -> None:
    there = page(folder)
    assert there.named("html")[0]["lang"] == "en"
    assert "width=device-width" in str(there.named("meta"))
    assert len(there.named("svg")) == 3
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in there.named("svg"))
    assert len(there.named("h1")) == len(there.named("title")) == 1
    assert "prefers-color-scheme: dark" in (folder / "report.html").read_text(encoding="utf-8")
    ids = [attributes["id"] for _, attributes in there.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_every_colour_that_the_figures_use_is_defined_by_the_page(folder: Path) -> None:
    page(folder)
    html = (folder / "report.html").read_text(encoding="utf-8")
    for colour in PAGE_COLOURS.values():
        assert html.count(colour.removeprefix("var(").removesuffix(")") + ": #") == 2  # light and dark


@pytest.mark.parametrize("absent", sorted(FILES))
def test_any_file_may_be_missing(folder: Path, absent: str) -> None:
    (folder / absent).unlink()
    figures = {"ratios.csv", "episodes.csv", "finetune.csv"}
    assert len(page(folder).named("svg")) == 3 - (absent in figures)


def test_a_run_that_only_began_says_so(tmp_path: Path) -> None:
    (tmp_path / "episodes.csv").write_text(FILES["episodes.csv"].split("2,start")[0])
    (tmp_path / "finetune.csv").write_text("epoch,loss,accuracy,lr,seconds\n")
    (tmp_path / "ratios.csv").write_text("")
    there = page(tmp_path)
    assert "not finished" in there.text
    assert tmp_path.name in there.text
    assert there.named("svg") == []


def test_the_page_is_the_same_twice_and_alone_in_being_written(folder: Path) -> None:
    write_run_report(folder)
    first = (folder / "report.html").read_bytes()
    write_run_report(folder)
    assert (folder / "report.html").read_bytes() == first
    assert {path.name for path in folder.iterdir()} == {*FILES, "report.html"}


def test_a_folder_that_cannot_be_written_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_run_report(tmp_path / "file" / "run")


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
