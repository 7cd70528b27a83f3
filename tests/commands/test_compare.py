import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from workshop import NET, Interrupting, flags, macs

import rlprune
from rlprune.errors import UserError
from rlprune.methods.criteria.base import score_channels
from rlprune.tasks import classification
from rlprune.utils.progress import Progress

METHODS = "uniform,global-l1,sensitivity,random,evolution,cma-es,amc,ppo"
EVALUATIONS = 16
"""10 for the sensitivities of the three groups."""


@pytest.fixture(scope="session")
def contest(shop: Any) -> Any:
    """A finished comparison over two seeds, in `folder`, its `settings` and its `result`."""
    settings = shop.search | {"methods": METHODS, "seeds": 2, "evaluations": EVALUATIONS, "finetune_epochs": 0}
    folder = shop.root / "compared"
    return SimpleNamespace(folder=folder, settings=settings, result=rlprune.compare(**settings, out=folder))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def cells(folder: Path) -> dict[tuple[str, int], dict[str, str]]:
    """The cells without their times."""
    times = ("seconds", "own_seconds")
    rows = [{key: value for key, value in row.items() if key not in times} for row in table(folder / "cells.csv")]
    return {(row["method"], int(row["seed"])): row for row in rows}


def test_a_folder_holds_everything(contest: Any) -> None:
    found = [path.relative_to(contest.folder).as_posix() for path in contest.folder.rglob("*") if path.is_file()]
    plans = sorted(f"plans/{name}-{seed}.json" for name in METHODS.split(",") for seed in (0, 1))
    assert sorted(found) == [
        "cells.csv", "command.txt", "comparison.json", "comparison.png", "comparison.svg", "config.yaml", "curves.csv",
        "environment.json", "episodes.csv", *plans,
        "state/inputs.json", "state/lock", "state/run.json",
    ]  # fmt: skip
    assert yaml.safe_load((contest.folder / "config.yaml").read_text())["methods"] == METHODS
    assert set(cells(contest.folder)) == {(name, seed) for name in METHODS.split(",") for seed in (0, 1)}


def test_a_plan_of_a_comparison_can_be_cut_by(shop: Any, contest: Any, tmp_path: Path) -> None:
    """It keeps the channels that the comparison has counted, under its budget."""
    plan = contest.folder / "plans" / "sensitivity-0.json"
    found = rlprune.prune(plan=plan, checkpoint=shop.search["checkpoint"], device="cpu", out=tmp_path / "cut")
    here = cells(contest.folder)["sensitivity", 0]
    assert [row["kept"] for row in found["table"]] == [int(count) for count in here["counts"].split()]
    assert found["macs_ratio"] == pytest.approx(float(here["macs_ratio"]))


def test_every_plan_is_inside_the_budget_and_no_method_had_more_evaluations(contest: Any) -> None:
    names: dict[str, Any] = {}
    exec(NET, names)
    dense = macs(names["make"](3))
    for (name, _), row in cells(contest.folder).items():
        assert int(row["evaluations"]) <= {"uniform": 1, "global-l1": 1, "sensitivity": 11}.get(name, EVALUATIONS)
        kept = [int(count) for count in row["counts"].split()]
        # The network of the kept counts, written down once more.
        smaller = names["make"](3)
        first, second, last = kept
        smaller.stem, smaller.stem_norm = rebuilt(smaller.stem, 3, first), rebuilt(smaller.stem_norm, first)
        smaller.inner, smaller.inner_norm = rebuilt(smaller.inner, first, second), rebuilt(smaller.inner_norm, second)
        smaller.outer, smaller.outer_norm = rebuilt(smaller.outer, second, second), rebuilt(smaller.outer_norm, second)
        smaller.last, smaller.head = rebuilt(smaller.last, second, last), rebuilt(smaller.head, last, 3)
        assert macs(smaller.eval()) / dense == pytest.approx(float(row["macs_ratio"]))
        assert macs(smaller.eval()) / dense <= 0.15


def rebuilt(layer: Any, *sizes: int) -> Any:
    """The same layer for other numbers of channels."""
    kind = type(layer)
    if hasattr(layer, "kernel_size"):
        return kind(*sizes, layer.kernel_size, layer.stride, layer.padding, bias=layer.bias is not None)
    return kind(*sizes)


def test_rules_that_score_by_criteria_of_their_own(
    contest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which are asked once for all seeds, and have no say in which channels stay: one plan has one loss."""
    asked: list[str] = []
    score = score_channels

    def counted(name: str, *args: Any) -> Any:
        asked.append(name)
        return score(name, *args)

    monkeypatch.setattr("rlprune.pipeline.rankings.score_channels", counted)
    methods = ["er", "erk", "erk-plus", "snip-ratio", "pfp", "fisher-global", "uniform"]
    settings = contest.settings | {"methods": ",".join(methods), "evaluations": 1}
    result = rlprune.compare(**settings, out=tmp_path / "run")
    assert sorted(asked) == ["group-fisher", "pfp", "snip"]
    assert {record["method"] for record in result["methods"]} == set(methods)
    found = cells(tmp_path / "run")
    assert all(float(row["macs_ratio"]) <= 0.15 for row in found.values())
    assert len({row["counts"] for row in found.values()}) == len({row["search_loss"] for row in found.values()}) > 3
    for name in methods:
        assert found[name, 0] == found[name, 1] | {"seed": "0"}
    here = cells(contest.folder)["uniform", 0]
    assert found["uniform", 0] == here


@pytest.fixture(scope="session")
def grid(shop: Any) -> Any:
    """A finished comparison of three methods under three criteria: its `folder`, `settings` and `result`."""
    settings = shop.search | {"methods": "uniform,sensitivity,random", "seeds": 2, "evaluations": 14}
    settings |= {"finetune_epochs": 0, "criteria": "l1,taylor:order=1,random"}
    folder = shop.root / "grid"
    return SimpleNamespace(folder=folder, settings=settings, result=rlprune.compare(**settings, out=folder))


@pytest.mark.parametrize("criterion", ["l1", "taylor:order=1", "random"])
def test_a_column_of_the_grid_is_the_comparison_under_its_criterion(grid: Any, tmp_path: Path, criterion: str) -> None:
    alone = grid.settings | {"criterion": criterion, "criteria": None}
    rlprune.compare(**alone, out=tmp_path / "run")
    expected = cells(tmp_path / "run")
    found = {
        (name.partition("@")[0], seed): row | {"method": name.partition("@")[0]}
        for (name, seed), row in cells(grid.folder).items()
        if name.partition("@")[2] == criterion
    }
    assert found == expected
    plan = "plans/sensitivity{}-1.json"
    here, there = (json.loads((root / plan.format(name)).read_text()) for root, name in
                   ((grid.folder, f"@{criterion}"), (tmp_path / "run", "")))  # fmt: skip
    assert here == there
    assert here["provenance"]["criterion"] == criterion
    log = {row["counts"]: row["loss"] for row in table(grid.folder / f"episodes-{criterion}.csv")}
    assert log == {row["counts"]: row["loss"] for row in table(tmp_path / "run" / "episodes.csv")}


def test_the_tables_of_a_grid_name_method_and_criterion(grid: Any) -> None:
    names = [f"{method}@{criterion}" for method in ("uniform", "sensitivity", "random")
             for criterion in ("l1", "taylor:order=1", "random")]  # fmt: skip
    assert set(cells(grid.folder)) == {(name, seed) for name in names for seed in (0, 1)}
    assert {record["method"] for record in grid.result["methods"]} == set(names)
    assert {row["method"] for row in table(grid.folder / "curves.csv")} == set(names)
    assert all(name in (grid.folder / "comparison.svg").read_text() for name in names)
    # The same counts are another network under another criterion.
    assert len({row["search_loss"] for (name, _), row in cells(grid.folder).items() if "uniform" in name}) == 3


def test_an_interrupted_grid_ends_like_one_that_was_not(grid: Any, tmp_path: Path) -> None:
    folder = tmp_path / "grid"
    with pytest.raises(KeyboardInterrupt, match="the same command continues"):
        rlprune.compare(**grid.settings, out=folder, progress=Interrupting("random@taylor:order=1, seed 0", 5))
    assert 0 < len(cells(folder)) < 18
    assert rlprune.compare(**grid.settings, out=folder)["verdict"] == grid.result["verdict"]
    assert cells(folder) == cells(grid.folder)
    for path in grid.folder.glob("episodes-*.csv"):
        assert len(table(path)) == len(table(folder / path.name))


def test_curves_end_where_the_cells_do_and_every_evaluation_is_in_the_log_once(contest: Any) -> None:
    log = {row["counts"]: row for row in table(contest.folder / "episodes.csv")}
    assert len(log) == len(table(contest.folder / "episodes.csv"))
    curves = table(contest.folder / "curves.csv")
    for (name, seed), row in cells(contest.folder).items():
        mine = [line for line in curves if (line["method"], int(line["seed"])) == (name, seed)]
        losses = [float(line["best_loss"]) for line in mine]
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] == float(row["search_loss"]) == float(log[row["counts"]]["loss"])
        assert float(row["search_accuracy"]) == float(log[row["counts"]]["accuracy"])
        assert int(mine[-1]["evaluation"]) == int(row["evaluations"])


def test_the_agent_is_the_one_of_the_search(
    shop: Any, contest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the losses of base plans tell which is better; else a search tunes them, and a comparison does not."""
    monkeypatch.setattr("rlprune.agents.search.base_choice.tells", lambda *given: True)
    ending = {"finetune_epochs": 1}
    settings = shop.search | {"evaluations": EVALUATIONS} | ending
    found = rlprune.search(**settings, out=tmp_path / "run")
    here = cells(contest.folder)["ppo", 0]
    assert float(here["search_loss"]) == found["search_loss"]
    assert float(here["test_accuracy"]) == found["oneshot_accuracy"]
    assert here["counts"] == " ".join(str(row["kept"]) for row in found["table"])
    assert contest.result["dense_accuracy"] == found["dense_accuracy"]
    tuned = rlprune.compare(**contest.settings | {"methods": "ppo", "seeds": 1} | ending, out=tmp_path / "tuned")
    assert tuned["methods"][0]["tuned_accuracy"] == found["finetuned_accuracy"]
    assert tuned["methods"][0]["test_accuracy"] == found["oneshot_accuracy"]
    assert not (tmp_path / "tuned" / "state" / "ppo-0.pt").exists()


def test_the_dense_network_and_the_images_are_the_same_for_all_seeds(contest: Any) -> None:
    for name in ("uniform", "global-l1", "sensitivity"):
        one, other = (cells(contest.folder)[name, seed] for seed in (0, 1))
        assert one == other | {"seed": "0"}
    curves = table(contest.folder / "curves.csv")
    first, second = (
        [row["best_loss"] for row in curves if (row["method"], row["seed"]) == ("amc", seed)] for seed in ("0", "1")
    )
    assert first != second


def test_the_result(contest: Any) -> None:
    result = contest.result
    assert json.loads((contest.folder / "comparison.json").read_text()).items() >= result.items()
    methods = result["methods"]
    assert {record["method"] for record in methods} == set(METHODS.split(","))
    assert [record["search_loss"] for record in methods] == sorted(record["search_loss"] for record in methods)
    for record in methods:
        rows = [cells(contest.folder)[record["method"], seed] for seed in (0, 1)]
        for key in ("search_loss", "search_accuracy", "test_accuracy", "evaluations"):
            one, other = (float(row[key]) for row in rows)
            assert record[key] == pytest.approx((one + other) / 2)
            assert record[f"{key}_sd"] == pytest.approx(abs(one - other) / 2**0.5)
        assert 0 <= record["own_share"] <= 1
        assert record["tuned_accuracy"] is None


def test_the_command_line_shows_a_table_and_a_sentence(
    run: Callable[..., Any], run_json: Callable[..., Any], contest: Any
) -> None:
    words = ("compare", *flags(contest.settings), "--out", contest.folder)
    assert run_json(*words) == contest.result
    shown = run(*words).out.splitlines()
    rows = [line.split()[0] for line in shown if line.split() and line.split()[0] in METHODS.split(",")]
    # The last line starts with the agent, too.
    assert rows[: len(METHODS.split(","))] == [record["method"] for record in contest.result["methods"]]
    assert shown[-1] == contest.result["verdict"]
    assert "points of test accuracy" in shown[-1]


@pytest.mark.parametrize(("stage", "after"), [("cma-es, seed 0", 13), ("ppo, seed 1", 14)])
def test_an_interrupted_comparison_ends_like_one_that_was_not(
    contest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, after: int
) -> None:
    folder = tmp_path / "compared"
    measured: list[object] = []
    measure = classification.calibrated

    def counted(*args: Any) -> classification.Evaluation:
        measured.append(None)
        return measure(*args)

    monkeypatch.setattr("rlprune.tasks.classification.calibrated", counted)
    with pytest.raises(KeyboardInterrupt, match="the same command continues"):
        rlprune.compare(**contest.settings, out=folder, progress=Interrupting(stage, after))
    ended = cells(folder)
    assert 0 < len(ended) < 16
    begun: list[str] = []

    class Watching(Progress):
        def stage(self, name: str, total: int | None = None, done: int = 0) -> None:
            begun.append(name)

    result = rlprune.compare(**contest.settings, out=folder, progress=Watching())
    assert not {f"{name}, seed {seed}" for name, seed in ended} & set(begun)
    assert stage in begun
    assert len(measured) == len(table(folder / "episodes.csv"))
    assert cells(folder) == cells(contest.folder)
    assert table(folder / "curves.csv") == table(contest.folder / "curves.csv")
    assert result["verdict"] == contest.result["verdict"]


def test_a_finished_comparison_returns_its_result_at_once(contest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlprune.pipeline.compare.open_workload", pytest.fail)
    assert rlprune.compare(**contest.settings, out=contest.folder) == contest.result
    with pytest.raises(UserError, match=r"seeds: 2 \(there\) / 3 \(now\)"):
        rlprune.compare(**contest.settings | {"seeds": 3}, out=contest.folder)


def test_a_collapse_is_told(contest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []

    class Noting(Progress):
        def note(self, text: str) -> None:
            notes.append(text)

    monkeypatch.setattr("rlprune.agents.algorithms.base.collapse", lambda agent, task: "the policy collapsed: gone")
    settings = contest.settings | {"methods": "ppo", "seeds": 1}
    result = rlprune.compare(**settings, out=tmp_path / "run", progress=Noting())
    assert notes == ["ppo, seed 0: the policy collapsed: gone"] == result["methods"][0]["remarks"]
    assert cells(tmp_path / "run")["ppo", 0]["remark"] == "the policy collapsed: gone"
    assert result["verdict"] == ""


def test_the_default_folder_is_found_again(
    run_json: Callable[..., Any], contest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = contest.settings | {"methods": "uniform", "seeds": 1, "evaluations": 1}
    result = run_json("compare", *flags(settings))
    assert result["run"].startswith("runs/compare-net.py_make-waves-0.15-")
    assert run_json("compare", *flags(settings)) == result
    assert len(list(Path("runs").iterdir())) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"methods": "ppo,cmaes"}, "unknown allocator 'cmaes': did you mean 'cma-es'?"),
        ({"methods": "ppo, uniform,ppo"}, "names ppo twice: give it once"),
        ({"methods": "uniform,histogram-valley"}, "--methods: leave out histogram-valley, which does not apply to this "
                                                  "network: the channels of 'last' pass no batch norm"),
        ({"methods": ""}, "methods is '': expected text"),
        ({"criteria": "l1,tailor"}, "unknown criterion 'tailor': did you mean 'taylor'?"),
        ({"criteria": "l1,taylor,l1"}, "--criteria l1,taylor,l1 names l1 twice: give it once"),
        ({"criterion": "taylor", "criteria": "l1,l2"}, "--criterion taylor and --criteria l1,l2: give one of them"),
        ({"criteria": "l1,bn-scale"}, "criterion bn-scale does not apply"),
        ({"seeds": 0}, "seeds is 0: expected at least 1"),
        ({"seed": 2**32 - 1}, "go beyond the largest seed, 4294967295"),
        ({"evaluations": 11}, "--evaluations 11 is too few for evolution: the sensitivities of 3 groups and the first "
                              "plans need 12"),
        ({"budget": None}, "--budget is missing: what may be KEPT"),
        ({"budget": 0.0001}, "is below what is feasible"),
        ({"finetune_epochs": -1}, "finetune_epochs is -1: expected at least 0"),
    ],
    ids=repr,
)  # fmt: skip
def test_mistakes_are_told_before_anything_is_written(
    run: Callable[..., Any], contest: Any, tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    settings = {name: value for name, value in (contest.settings | given).items() if value is not None}
    code, out, err = run("compare", *flags(settings), "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_a_missing_library_is_told_with_the_line_that_installs_it(
    run: Callable[..., Any], contest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlprune.registry.find_spec", lambda name: None)
    monkeypatch.setattr("rlprune.pipeline.compare.open_workload", pytest.fail)
    code, _, err = run("compare", *flags(contest.settings), "--out", tmp_path / "out")
    assert code == 2
    assert "pip install 'rlprune[compare]'" in err
    assert not (tmp_path / "out").exists()
