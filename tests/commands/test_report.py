import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from samples import write_run

import rlprune

FIGURES = {"kept-channels", "kept-macs", "search", "front", "reactions", "finetune"}


def test_the_page_of_a_search(run: Callable[..., Any], searched: Any, tmp_path: Path) -> None:
    code, out, err = run("report", searched.folder, "--out", tmp_path / "new" / "page.html")
    assert (code, err) == (0, "")
    assert str(tmp_path / "new" / "page.html") in out
    # What the search itself has written is the same page.
    assert (tmp_path / "new" / "page.html").read_text() == (searched.folder / "report.html").read_text()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]


def test_the_reactions_of_a_search_are_all_its_observations(searched: Any) -> None:
    table = pd.read_csv(searched.folder / "reactions.csv")
    policy = json.loads((searched.folder / "policy" / "policy.json").read_text())
    assert sorted(table["observation"]) == sorted(policy["observation"]["names"])
    assert table["change"].between(0, 2).all()
    assert table["change"].max() > 0
    still = table.set_index("observation")["change"]
    assert still["budget_macs"] == 0  # there was one budget


def test_a_run_gets_its_page_and_figures(run_json: Callable[..., Any], tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    assert run_json("report", folder) == {"page": str(folder / "report.html"), "figures": None}
    assert not (folder / "figures").exists()
    result = run_json("report", folder, "--figures")
    assert result["figures"] == str(folder / "figures")
    there = {path.name for path in (folder / "figures").iterdir()}
    assert there == {f"{name}.{ending}" for name in FIGURES for ending in ("png", "svg")}


def test_several_runs_go_to_the_current_folder(
    run_json: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [write_run(tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert run_json("report", *runs)["page"] == "report.html"
    assert "2 runs side by side" in Path("report.html").read_text()
    assert rlprune.report(runs=runs, out="again.html") == {"page": "again.html", "figures": None}
    assert Path("again.html").read_bytes() == Path("report.html").read_bytes()


def test_mistakes_are_one_line_and_nothing_is_written(run: Callable[..., Any], tmp_path: Path) -> None:
    good, empty = write_run(tmp_path / "good"), tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "young").mkdir()
    (tmp_path / "young" / "config.yaml").write_text("model: vgg16\n")
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "figures").write_text("")
    before = sorted(tmp_path.rglob("*"))
    for said, arguments in {
        "RUN... is missing: run folders": [],
        "empty is no run folder: expected one that `rlprune search` has made": [empty],
        "missing is no run folder": [good, tmp_path / "missing"],
        "young has no evaluations yet": [good, tmp_path / "young", "--out", tmp_path / "page.html"],
        "good is given twice: name every run once": [good, good],
        "9 runs are too many for one page: no more than 8 colours differ": [good] * 9,
        "is a folder: name a file such as": [good, "--out", empty],
        f"cannot write to {good / 'result.json'}": [good, "--out", good / "result.json" / "page.html"],
        "figures is a file where the folder of the figures would be": [
            *(good, "--figures", "--out", tmp_path / "blocked" / "page.html"),
        ],
    }.items():
        code, out, err = run("report", *arguments)
        assert (code, out) == (2, "")
        assert err.startswith("rlprune: error: ")
        assert said in err
        assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
