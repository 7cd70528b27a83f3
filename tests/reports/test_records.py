"""What is read of a run folder, whole or not, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from samples import write_run

from rlprune.errors import UserError
from rlprune.reports.records import NEEDED, read_records
from rlprune.runs.folder import parts_of


def test_a_run_is_read_as_it_was_left(tmp_path: Path) -> None:
    (record,) = read_records([write_run(tmp_path / "run", probes=4, plans=8)])
    assert record.name == "run"
    assert record.settings["budget"] == 0.3
    assert record.versions == {"python": "3.11", "torch": "2.9.0"}
    assert record.command == "rlprune search --model vgg16 --seed 0\n"
    assert set(record.tables) == set(NEEDED) - {"front.csv", "tunings.csv", "agents.csv"}
    assert len(record.plans) == 12


def test_names_are_as_short_as_they_can_be(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / "a" / "run"),
        write_run(tmp_path / "b" / "run"),
        write_run(tmp_path / "b" / "other"),
    ]
    assert [record.name for record in read_records(folders)] == ["a/run", "b/run", "b/other"]
    assert [record.name for record in read_records(folders[1:])] == ["run", "other"]


def test_a_folder_is_named_by_where_it_is_and_not_by_how_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_run(tmp_path / "run"))
    assert read_records([Path()])[0].name == "run"


def test_a_run_of_several_networks_is_their_runs(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    parts = [write_run(folder / name) for name in ("resnet20", "vgg16")]
    assert parts_of(tmp_path) == [tmp_path]
    assert parts_of(folder) == [folder]  # folders of runs are not a run
    (folder / "config.yaml").write_text("version: 1\nmodel: resnet20,vgg16\n")
    assert parts_of(folder) == parts
    assert parts_of(parts[0]) == [parts[0]]


def test_the_same_run_twice(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    with pytest.raises(UserError, match=r"run/\.\./run is given twice: name every run once"):
        read_records([folder, folder / ".." / "run"])


def test_a_line_that_is_just_being_written_is_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "result.json").unlink()
    with (folder / "episodes.csv").open("a") as file:
        file.write("13,search,0.00001,0.9")
    (record,) = read_records([folder])
    assert len(record.plans) == 12
    assert record.result == {}


def test_names_that_look_like_numbers_stay_texts(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", groups=2)
    text = (folder / "ratios.csv").read_text().replace("layer0.conv", "0.10").replace("layer1.conv", "null")
    (folder / "ratios.csv").write_text(text)
    assert read_records([folder])[0].tables["ratios.csv"]["group"].tolist() == ["0.10", "null"]


def test_the_baselines_are_the_first_plans_of_a_search(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", probes=4)
    (record,) = read_records([folder])
    first, second = record.plans["loss"][4:6]
    assert record.baselines() == {"sensitivity rule": first, "uniform": second}
    # A rule whose plan was known from the sensitivities is not measured, and not logged, again.
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"base_loss": 0.5}))
    assert read_records([folder])[0].baselines() == {"sensitivity rule": 0.5, "uniform": first}


@pytest.mark.parametrize("line", ["budget: 0.2:0.8", "reward: balance:macs=1"])
def test_other_searches_have_no_baselines(tmp_path: Path, line: str) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "config.yaml").write_text(f"model: vgg16\n{line}\n")
    assert read_records([folder])[0].baselines() == {}


def test_plans_without_a_finite_loss_are_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    lines = (folder / "episodes.csv").read_text().splitlines()
    for place, loss in ((5, "inf"), (6, "nan"), (7, "-inf")):
        cells = lines[place].split(",")
        lines[place] = ",".join([*cells[:2], loss, *cells[3:]])
    (folder / "episodes.csv").write_text("\n".join(lines) + "\n")
    (record,) = read_records([folder])
    assert len(record.plans) == 9
    assert np.isfinite(record.plans["loss"]).all()


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name in ("empty", "file", "missing"):
        with pytest.raises(UserError, match=f"{name} is no run folder: expected one that `rlprune search` has made"):
            read_records([tmp_path / name])


def test_a_run_that_has_only_begun_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: vgg16\n")
    for text in ("", "evaluation,stage,loss\n"):
        (tmp_path / "episodes.csv").write_text(text)
        with pytest.raises(UserError, match="has no evaluations yet"):
            read_records([tmp_path])


def test_a_comparison_is_pointed_to_its_figure(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: vgg16\nmethods: ppo,uniform\n")
    with pytest.raises(UserError, match=r"is a comparison of methods, whose figure is .*comparison\.png"):
        read_records([tmp_path])


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("episodes.csv", 'a,b\n1,2\n"3\n', "is not a readable table"),
        ("episodes.csv", "a,b\n1,2\n", "has no column 'evaluation'"),
        ("episodes.csv", "{}\n1,2,3\n4\n", "has no column|is not a readable table"),
        ("ratios.csv", "group\na\n", "has no column 'tied'"),
        ("ratios.csv", "group,tied,channels,kept,keep_ratio\na,0,8,many,1\n", "is not a readable table: .*many"),
        ("reactions.csv", "x\n1\n", "has no column 'observation'"),
        ("config.yaml", "- a\n", "does not hold names and values"),
        ("config.yaml", "{", "does not hold names and values"),
        ("environment.json", "[1]", "does not hold names and values"),
        ("result.json", "{", "is not JSON"),
        ("result.json", "{}", "is not a file of the format rlprune-run"),
    ],
)
def test_damaged_files_are_the_users_errors(tmp_path: Path, file: str, content: str, said: str) -> None:
    folder = write_run(tmp_path / "run")
    (folder / file).write_text(content)
    with pytest.raises(UserError, match=said):
        read_records([folder])


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "episodes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot read"):
        read_records([folder])
