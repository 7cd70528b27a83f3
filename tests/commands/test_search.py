import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from workshop import episodes, flags, kept_counts, same_weights

import rlprune
from rlprune.errors import UserError

PROMISED = {
    "run", "plan", "macs_ratio", "params_ratio", "dense_accuracy", "oneshot_accuracy", "finetuned_accuracy",
    "evaluations", "seconds",
}  # fmt: skip


def losses(folder: Path) -> list[tuple[str, str]]:
    return [(row["counts"], row["loss"]) for row in episodes(folder)]


def test_a_run_folder_holds_everything(searched: Any) -> None:
    folder = searched.folder
    expected = [
        "command.txt", "config.yaml", "environment.json", "episodes.csv", "finetune.csv", "plan.json",
        "policy/agent.zip", "policy/policy.json", "policy/policy.safetensors", "pruned/README.md",
        "pruned/config.json", "pruned/model.safetensors", "pruned/plan.json", "ratios.csv", "reactions.csv",
        "report.html", "result.json", "state/inputs.json", "state/lock", "state/run.json",
    ]  # fmt: skip
    found = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    events = [name for name in found if name.startswith("tensorboard/")]
    # Base plans are tuned where their losses do not tell which is better; see test_tunings.py.
    assert sorted(set(found) - set(events) - {"tunings.csv"}) == expected
    assert events
    assert yaml.safe_load((folder / "config.yaml").read_text())["budget"] == 0.15
    assert json.loads((folder / "environment.json").read_text())["torch"] == torch.__version__.partition("+")[0]
    assert "<html" in (folder / "report.html").read_text()
    assert len(pd.read_csv(folder / "finetune.csv")) == 2


def test_the_log_has_one_line_an_evaluation(searched: Any, shop: Any) -> None:
    rows = episodes(searched.folder)
    assert len(rows) == shop.search["evaluations"] == searched.result["evaluations"]
    assert [row["evaluation"] for row in rows] == [str(number) for number in range(1, len(rows) + 1)]
    assert len({row["counts"] for row in rows}) == len(rows)
    assert [row["stage"] for row in rows] == ["sensitivity"] * 10 + ["search"] * (len(rows) - 10)
    plans = [row for row in rows if row["stage"] == "search"]
    assert all(float(row["macs_ratio"]) <= 0.15 for row in plans)
    best = min(plans, key=lambda row: float(row["loss"]))
    assert float(best["loss"]) == searched.result["search_loss"] <= searched.result["base_loss"]
    kept = pd.read_csv(searched.folder / "ratios.csv")["kept"]
    assert best["counts"] == " ".join(map(str, kept)) == kept_counts(searched.folder)
    np.testing.assert_allclose(
        [float(row["best_loss"]) for row in plans],
        np.minimum.accumulate([float(row["loss"]) for row in plans]),
        atol=1e-6,
    )


def test_the_pruned_network_is_inside_the_budget(searched: Any, kept_macs: Callable[[Path], float]) -> None:
    assert kept_macs(searched.folder) == pytest.approx(searched.result["macs_ratio"], rel=1e-12)
    assert 0.14 < searched.result["macs_ratio"] <= 0.15
    parameters = sum(parameter.numel() for parameter in rlprune.load(searched.folder).parameters())
    assert parameters == searched.result["pruned_params"]


def test_the_command_line_finds_what_the_function_finds(
    run_json: Callable[..., Any], shop: Any, searched: Any, tmp_path: Path
) -> None:
    result = run_json("search", *flags(shop.search), "--out", tmp_path / "again")
    assert result.keys() >= PROMISED
    times_and_places = ("seconds", "run", "plan")
    assert {key: value for key, value in result.items() if key not in times_and_places} == {
        key: value for key, value in searched.result.items() if key not in times_and_places
    }
    assert losses(tmp_path / "again") == losses(searched.folder)
    again, first = (json.loads((folder / "plan.json").read_text()) for folder in (tmp_path / "again", searched.folder))
    assert again == first
    assert same_weights(tmp_path / "again", searched.folder)


def test_another_seed_searches_elsewhere(shop: Any, searched: Any, tmp_path: Path) -> None:
    rlprune.search(**shop.search, seed=1, out=tmp_path / "other")
    assert losses(tmp_path / "other") != losses(searched.folder)


@pytest.mark.parametrize("agent", ["ddpg", "td3", "sac"])
def test_every_agent_finishes(shop: Any, kept_macs: Callable[[Path], float], tmp_path: Path, agent: str) -> None:
    result = rlprune.search(**shop.search | {"agent": agent, "finetune_epochs": 0}, out=tmp_path / "run")
    assert result["agent"] == agent
    assert result["finetuned_accuracy"] is None
    assert not (tmp_path / "run" / "finetune.csv").exists()
    assert kept_macs(tmp_path / "run") <= 0.15


@pytest.mark.parametrize(
    "settings",
    [
        {"reward": "balance:macs=2,params=1"},
        {"reward": "balance:macs=2,params=1", "budget": None},
        {"round_to": 4},
        {"min_channels": 2, "criterion": "taylor"},
        {"budget": "macs=0.5,params=0.2"},
    ],
    ids=str,
)
def test_settings_of_the_search_hold(
    shop: Any, kept_macs: Callable[[Path], float], tmp_path: Path, settings: dict[str, Any]
) -> None:
    result = rlprune.search(**shop.search | {"finetune_epochs": 0} | settings, out=tmp_path / "run")
    table = pd.read_csv(tmp_path / "run" / "ratios.csv")
    whole = table["kept"] == table["channels"]
    assert ((table["kept"] % settings.get("round_to", 1) == 0) | whole).all()
    assert (table["kept"] >= settings.get("min_channels", 1)).all()
    if "budget" not in settings:
        assert kept_macs(tmp_path / "run") <= 0.15
    if "params" in str(settings.get("budget")):
        parameters = sum(parameter.numel() for parameter in rlprune.load(tmp_path / "run").parameters())
        assert parameters <= 0.2 * result["dense_params"]
    assert len(episodes(tmp_path / "run")) == result["evaluations"] <= shop.search["evaluations"]


def test_the_dense_network_is_trained_where_no_checkpoint_is_given(
    run_json: Callable[..., Any], shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {key: value for key, value in shop.search.items() if key != "checkpoint"} | {"train_epochs": 1}
    result = run_json("search", *flags(settings))
    assert Path(result["run"]).parent == Path("runs")
    assert [path.name for path in Path("runs").iterdir()] == [Path(result["run"]).name]
    # The dense network of the run comes from the cache, as does its seed from the run.
    assert run_json("eval", result["run"])["test_accuracy"] == result["finetuned_accuracy"]
    pruned = run_json("prune", "--plan", result["run"], "--out", "pruned")
    assert pruned["macs_ratio"] == result["macs_ratio"]
    assert run_json("eval", "pruned")["test_accuracy"] == result["oneshot_accuracy"]


def test_the_function_tells_its_settings() -> None:
    assert "rlprune.config.commands.Search" in str(inspect.getdoc(rlprune.search))
    with pytest.raises(UserError, match="unknown setting 'evalutions': did you mean 'evaluations'"):
        rlprune.search(model="vgg16", budget=0.3, evalutions=10)


def test_groups_that_are_left_out_stay_so_wherever_the_run_goes(shop: Any, tmp_path: Path) -> None:
    """A plan knows which groups its network was said to have."""
    run = tmp_path / "run"
    settings = shop.search | {"budget": 0.5, "exclude": "outer", "evaluations": 20, "finetune_epochs": 1}
    result = rlprune.search(**settings, out=run)
    assert [row["group"] for row in result["table"]] == ["stem", "last"]
    assert rlprune.load(run).inner.out_channels == 32
    evaluated = rlprune.eval(source=run, device="cpu")
    assert evaluated["test_accuracy"] == result["finetuned_accuracy"]
    assert rlprune.finetune(source=run, epochs=1, device="cpu", out=tmp_path / "more")["epochs"] == 1
    replayed = rlprune.replay(source=run, budget=0.6, device="cpu", out=tmp_path / "replayed")
    assert [row["group"] for row in replayed["table"]] == ["stem", "last"]
    again = rlprune.prune(plan=run, budget=0.55, device="cpu", out=tmp_path / "again")
    assert [row["group"] for row in again["table"]] == ["stem", "last"]
    table = tmp_path / "table.csv"
    table.write_text("group,keep_ratio\nstem,0.5\n")
    known = {key: shop.settings[key] for key in ("model", "data")} | {"checkpoint": shop.checkpoint, "device": "cpu"}
    alone = rlprune.prune(ratios=table, **known, include="stem", out=tmp_path / "alone")
    assert [(row["group"], row["kept"]) for row in alone["table"]] == [("stem", 8)]
