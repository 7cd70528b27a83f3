"""Repairs from the command line: in every evaluation, in the final network, and wherever its plan goes."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from workshop import flags, same_weights

import rlprune
from rlprune.tasks.classification import calibrated
from rlprune.utils.progress import Progress
from rlprune.workloads.workload import open_workload

REPAIR = "bn,merge,bias,reconstruct:ridge=0.1,rows=2000"


@pytest.fixture(scope="module")
def found(shop: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A search whose evaluations are repaired."""
    folder = tmp_path_factory.mktemp("repaired") / "run"
    settings = shop.search | {"finetune_epochs": 0, "repair": REPAIR}
    return SimpleNamespace(folder=folder, settings=settings, result=rlprune.search(**settings, out=folder))


def search_loss(folder: Path, settings: dict[str, Any]) -> float:
    """Of a pruned folder's network on the search images."""
    workload = open_workload({name: settings[name] for name in settings if name != "checkpoint"}, Progress())
    images, labels = workload.search()
    with torch.no_grad():
        return calibrated(rlprune.load(folder)(images), labels).loss


def told(folder: Path) -> str | None:
    """What a plan says of its repairs."""
    found: str | None = json.loads((folder / "plan.json").read_text())["provenance"].get("repair")
    return found


def test_the_best_loss_of_a_search_is_that_of_its_network(shop: Any, found: Any) -> None:
    assert found.result["search_loss"] == pytest.approx(search_loss(found.folder, shop.settings), abs=1e-5)
    assert told(found.folder) == told(found.folder / "pruned") == REPAIR
    assert f"`{REPAIR}`" in (found.folder / "pruned" / "README.md").read_text()


def test_a_plan_is_cut_and_repaired_alike(
    found: Any, shop: Any, run_json: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    for number, source in enumerate((found.folder, found.folder / "plan.json")):
        checkpoint = ["--checkpoint", shop.checkpoint] if number else []
        run_json("prune", "--plan", source, *checkpoint, "--out", tmp_path / str(number))
        assert same_weights(tmp_path / str(number), found.folder)
        assert told(tmp_path / str(number)) == REPAIR
    run_json("prune", "--plan", found.folder, "--repair", "bn", "--out", tmp_path / "plain")
    assert not same_weights(tmp_path / "plain", found.folder)
    assert told(tmp_path / "plain") is None


def test_a_replay_repairs_as_its_search_did(
    found: Any, run_json: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    result = run_json("replay", found.folder, "--evaluations", 4, "--device", "cpu", "--out", tmp_path / "again")
    assert told(tmp_path / "again") == REPAIR
    assert result["search_loss"] == pytest.approx(search_loss(tmp_path / "again", found.settings), abs=1e-5)
    # Plans that the search has evaluated are known.
    other = run_json(
        "replay", found.folder, "--evaluations", 4, "--device", "cpu", "--repair", "bn", "--out", tmp_path / "other"
    )
    assert told(tmp_path / "other") is None
    assert other["search_loss"] == pytest.approx(search_loss(tmp_path / "other", found.settings), abs=1e-5)


def test_the_plans_of_a_comparison(shop: Any, run_json: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    settings = {key: value for key, value in shop.search.items() if key != "finetune_epochs"}
    settings |= {"methods": "uniform,random", "seeds": 1, "repair": "merge,bn", "evaluations": 12}
    run_json("compare", *flags(settings), "--out", tmp_path / "compared")
    with (tmp_path / "compared" / "cells.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        plan = tmp_path / "compared" / "plans" / f"{row['method']}-0.json"
        out = tmp_path / row["method"]
        run_json("prune", "--plan", plan, "--checkpoint", shop.checkpoint, "--out", out)
        assert float(row["search_loss"]) == pytest.approx(search_loss(out, settings), abs=1e-5)
        assert told(out) == "merge,bn"


def test_fine_tuning_starts_from_the_repaired_network(
    found: Any, run_json: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    after = run_json("finetune", found.folder, "--epochs", 1, "--device", "cpu", "--out", tmp_path / "tuned")
    assert after["before"] == found.result["oneshot_accuracy"]
    assert told(tmp_path / "tuned") == REPAIR


def test_tunings_start_from_the_repaired_network(shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut: list[str] = []

    def watch(self: Any, kept: Any, whole: Any = rlprune.methods.recovery.base.Repairs.cut) -> Any:
        cut.append("cut")
        return whole(self, kept)

    settings = shop.search | {"finetune_epochs": 1, "tunings": 4, "repair": "bias"}
    plain = rlprune.search(**settings, out=tmp_path / "run")
    monkeypatch.setattr("rlprune.methods.recovery.base.Repairs.cut", watch)
    again = rlprune.search(**settings, out=tmp_path / "watched")
    assert len(cut) == again["evaluations"] + again["tunings"] + 1
    assert again["tuned_loss"] == plain["tuned_loss"]


def test_a_residual_network_of_digits(run_json: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    settings = {"model": "resnet20", "model_args": "width=0.2", "data": "digits", "device": "cpu"}
    settings |= {"search_images": 60, "calibration_images": 30}
    run_json("train", *flags(settings), "--epochs", 3, "--out", tmp_path / "dense.safetensors")
    settings |= {"checkpoint": tmp_path / "dense.safetensors", "budget": 0.3, "evaluations": 42, "finetune_epochs": 0}
    result = run_json("search", *flags(settings), "--repair", "reconstruct,bn", "--out", tmp_path / "run")
    assert result["search_loss"] == pytest.approx(search_loss(tmp_path / "run", settings), abs=1e-4)
    run_json("prune", "--plan", tmp_path / "run", "--repair", "bn", "--out", tmp_path / "plain")
    assert result["search_loss"] < search_loss(tmp_path / "plain", settings)


@pytest.mark.parametrize(
    ("repair", "said"),
    [
        ("mrege,bn", "unknown repair 'mrege': did you mean 'merge'? known: bias, bn, merge, reconstruct"),
        ("merge,bn,merge", "--repair merge,bn,merge names merge twice: give it once"),
        ("merge,merge:share=0.5", "names merge twice"),
        ("reconstruct:rigde=1", "did you mean 'ridge'?"),
        (",", "--repair is empty: expected some of bias, bn, merge, reconstruct"),
    ],
)
@pytest.mark.parametrize("command", ["search", "compare", "prune", "replay"])
def test_repairs_that_cannot_be(run: Callable[..., Any], tmp_path: Path, command: str, repair: str, said: str) -> None:
    network = ["--model", "vgg16", "--budget", "0.3"]
    words = {"prune": ["--plan", tmp_path], "replay": [tmp_path]}.get(command, network)
    ended = run(command, *words, "--repair", repair)
    assert ended.code == 2
    assert said in " ".join(ended.err.split())


def test_a_plan_of_repairs_that_are_not_here(found: Any, run: Callable[..., Any], shop: Any, tmp_path: Path) -> None:
    plan = json.loads((found.folder / "plan.json").read_text())
    plan["provenance"]["repair"] = "polish"
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    ended = run("prune", "--plan", tmp_path / "plan.json", "--checkpoint", shop.checkpoint)
    assert ended.code == 2
    assert "--repair bn" in ended.err
    assert "unknown repair 'polish'" in " ".join(ended.err.split())


def test_gates_are_not_repaired(run: Callable[..., Any]) -> None:
    ended = run("search", "--model", "vgg16", "--budget", "0.3", "--mode", "runtime", "--repair", "merge")
    assert ended.code == 2
    assert "--repair merge is for --mode static" in ended.err
