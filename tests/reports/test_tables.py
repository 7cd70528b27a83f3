"""The tables of a page say what the files say."""

import json
from pathlib import Path

import pandas as pd
from charts import record
from samples import write_run

from rlprune.reports.records import read_records
from rlprune.reports.tables import Table, summary, tables_of


def tables(*folders: Path) -> dict[str, Table]:
    return {table.name: table for table in tables_of(read_records(folders))}


def test_before_and_after(tmp_path: Path) -> None:
    table = summary(read_records([write_run(tmp_path / "run")]))
    assert table is not None
    # 83.12 % dense, 38.20 % one-shot, 79.84 % fine-tuned; 5 903 696 of 19 700 000 MACs, 114 452 of 923 000 parameters
    assert table.rows == [
        ["Test accuracy, one-shot", "83.12 %", "38.20 %", "−44.92 points"],
        ["Test accuracy, fine-tuned", "83.12 %", "79.84 %", "−3.28 points"],
        ["MACs of an image", "19.7 M", "5.90 M", "30.0 % kept"],
        ["Parameters", "923 k", "114 k", "12.4 % kept"],
    ]


def test_an_unfinished_run_has_no_after() -> None:
    assert summary([record()]) is None


def test_runs_side_by_side(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
    (folders[1] / "result.json").unlink()
    table = summary(read_records(folders))
    assert table is not None
    assert table.head == ["", "a", "b"]
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["Network"] == ["vgg16", "vgg16"]
    assert rows["Seed"] == ["0", "1"]
    assert rows["Evaluations"] == ["12", "12"]
    assert rows["Time"] == ["4 min 12 s", "not finished"]
    assert rows["Test accuracy, fine-tuned"] == ["79.84 %", "–"]
    assert rows["MACs of an image"] == ["19.7 M → 5.90 M (30.0 %)", "–"]
    losses = pd.read_csv(folders[1] / "episodes.csv")["loss"]
    assert rows["Search loss, sensitivity rule"][1] == f"{losses[4]:.4g}"
    assert rows["Search loss, uniform"][1] == f"{losses[5]:.4g}"
    assert rows["Search loss, best"][1] == f"{losses[4:].min():.4g}"


def test_every_row_of_every_file_is_there(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", groups=5, probes=4, plans=8)
    found = tables(folder)
    assert {name: len(table.rows) for name, table in found.items() if name not in ("settings", "versions")} == {
        "ratios": 5,
        "evaluations": 12,
        "all-reactions": 41,
        "epochs": 3,
    }
    for name, row in zip(pd.read_csv(folder / "ratios.csv")["group"], found["ratios"].rows, strict=True):
        assert row[0] == name
    assert all(len(row) == len(table.head or row) for table in found.values() for row in table.rows)
    assert found["evaluations"].rows[0][3] == "–"  # no best plan among the sensitivities
    assert found["epochs"].rows[1] == ["2", "0.5", "70.00 %"]
    assert ["budget", "0.3"] in found["settings"].rows
    assert ["torch", "2.9.0"] in found["versions"].rows


def test_older_ratio_tables_have_fewer_columns(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    columns = ["group", "tied", "channels", "kept", "keep_ratio"]
    pd.read_csv(folder / "ratios.csv")[columns].assign(tied=2).to_csv(folder / "ratios.csv", index=False)
    table = tables(folder)["ratios"]
    assert table.head == ["Group", "Tied layers", "Channels", "Kept", "Keep ratio"]
    assert table.rows[0][1] == "2"


def test_different_networks_share_a_table_of_groups(tmp_path: Path) -> None:
    one, other = write_run(tmp_path / "a", groups=2), write_run(tmp_path / "b", groups=3)
    rows = {row[0]: row[1:] for row in tables(one, other)["ratios"].rows}
    assert list(rows) == ["layer0.conv", "layer1.conv", "layer2.conv"]
    assert rows["layer2.conv"][0] == "–"
    assert " / " in rows["layer2.conv"][1]


def test_settings_in_which_runs_differ_come_first(tmp_path: Path) -> None:
    rows = tables(write_run(tmp_path / "a", seed=0), write_run(tmp_path / "b", seed=1))["settings"].rows
    assert rows[0] == ["seed", "0", "1"]
    assert ["model", "vgg16", "vgg16"] in rows


def test_what_is_not_set_is_not_told(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "config.yaml").write_text("budget: 0.3\nmean: [0.5, 0.4, 0.3]\ndownload: false\nout: null\n")
    assert tables(folder)["settings"].rows == [["budget", "0.3"], ["mean", "0.5, 0.4, 0.3"], ["download", "no"]]


def test_the_best_plans_of_a_range(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    plan = {"budget": "macs=0.2", "search_loss": 1.5, "base_loss": 1.75, "search_accuracy": 0.5, "macs_ratio": 0.2}
    result = json.loads((folder / "result.json").read_text()) | {"plans": [plan | {"params_ratio": 0.25}]}
    (folder / "result.json").write_text(json.dumps(result))
    row = ["macs=0.2", "1.75", "1.5", "50.0 %", "20.0 %", "25.0 %"]
    assert tables(folder)["budgets"].rows == [row]
    assert tables(folder, write_run(tmp_path / "b"))["budgets"].rows == [["run", *row]]


def test_a_block_that_is_out_is_told_as_such() -> None:
    table = pd.DataFrame(
        {"group": ["a", "b"], "tied": [0, 0], "channels": [8, 4], "kept": [2, 0], "keep_ratio": [0.25, 0]}
    )
    alone = {table.name: table for table in tables_of([record(ratios=table)])}["ratios"]
    assert [row[3] for row in alone.rows] == ["2", "block out"]
    side = {table.name: table for table in tables_of([record(ratios=table), record("other", ratios=table)])}["ratios"]
    assert side.rows == [["a", "2 / 8", "2 / 8"], ["b", "block out", "block out"]]
