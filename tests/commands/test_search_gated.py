"""`rlprune search --mode runtime`, from the settings to what is loaded."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from workshop import Interrupting, flags, same_weights

import rlprune
from rlprune.data.dataset import load_data
from rlprune.errors import UserError
from rlprune.gating.skipping import SkippingNetwork
from rlprune.pipeline import gated_search as runtime

METHODS = ["mix 0", "mix 0.5", "mix 1", "fbs", "rnp"]


@pytest.fixture(scope="module")
def given(shop: Any) -> dict[str, Any]:
    settings = shop.settings | {"checkpoint": shop.checkpoint, "mode": "runtime", "budget": 0.6, "rounds": 2}
    return settings | {"rollouts": 2, "finetune_epochs": 1}


@pytest.fixture(scope="module")
def ended(shop: Any, given: dict[str, Any]) -> Any:
    settings = given | {"mix": "0,0.5,1", "controls": "fbs,rnp", "out": shop.root / "gates"}
    return SimpleNamespace(settings=settings, folder=shop.root / "gates", result=rlprune.search(**settings))


def test_every_method_meets_the_budget_and_says_what_it_costs(ended: Any) -> None:
    rows = {row["method"]: row for row in ended.result["methods"]}
    assert list(rows) == METHODS
    for row in rows.values():
        assert 0.45 < row["macs_ratio"] < 0.63
        assert row["macs_p5"] - 1e-9 <= row["macs_ratio"] <= row["macs_p95"] + 1e-9
        assert row["test_accuracy"] > 1 / 3
        assert row["stored_ratio"] <= row["stored_with_gates"]
        card = (Path(row["folder"]) / "pruned" / "README.md").read_text(encoding="utf-8")
        assert "test accuracy" in card
    assert rows["mix 0"]["stored_ratio"] < rows["mix 0.5"]["stored_ratio"] < rows["mix 1"]["stored_ratio"] == 1
    assert rows["mix 0"]["macs_p5"] == rows["mix 0"]["macs_p95"] <= 0.6 + 1e-9
    assert rows["fbs"]["macs_p5"] == rows["fbs"]["macs_p95"]


@pytest.mark.parametrize("method", METHODS)
def test_what_is_loaded_is_what_was_measured(ended: Any, method: str) -> None:
    row = next(row for row in ended.result["methods"] if row["method"] == method)
    module = rlprune.load(row["folder"])
    assert isinstance(module, SkippingNetwork)
    test = load_data(ended.settings["data"]).test
    images, labels = test.take(torch.arange(len(test)))
    alone = torch.cat([module(image[None]) for image in images])
    assert (alone.argmax(1) == labels).float().mean().item() == pytest.approx(row["test_accuracy"])
    found = rlprune.eval(source=row["folder"], device="cpu")
    assert found["test_accuracy"] == pytest.approx(row["test_accuracy"])
    assert found["macs_ratio"] == pytest.approx(row["macs_ratio"], rel=1e-3)


def test_a_network_in_use_takes_another_budget(ended: Any) -> None:
    module = rlprune.load(ended.folder / "mix-1")
    assert isinstance(module, SkippingNetwork)
    still = rlprune.load(ended.folder / "mix-0")
    assert isinstance(still, SkippingNetwork)
    with pytest.raises(UserError, match=r"this network serves 0\.6 to 0\.6"):
        still.set_budget(0.5)
    low, high = module.budgets
    assert (low, high) == (pytest.approx(0.36), pytest.approx(0.9))
    test = load_data(ended.settings["data"]).test
    images, _ = test.take(torch.arange(len(test)))
    kept = []
    for budget in (0.45, 0.6, 0.85):
        module.set_budget(budget)
        with torch.no_grad():
            module.gated(images)
        kept.append(module.gated.counts().mean())
    assert kept == sorted(set(kept))


def test_the_agents_leave_a_course(ended: Any) -> None:
    course = pd.read_csv(ended.folder / "mix-0.5" / "agents.csv")
    assert course.groupby("kind").size().to_dict() == {"runtime": 4, "static": 4}
    assert {"loss", "accuracy", "macs_ratio", "reward"} <= set(course.columns)
    assert not list(ended.folder.glob("*/state/*.pt"))


@pytest.mark.parametrize(
    "stage",
    [
        "runtime agent, round 1 of 2",
        "runtime agent, round 2 of 2",
        "training, stage 7 of 7: the network under the final agents",
    ],
)
def test_an_interrupted_run_ends_like_any_other(given: dict[str, Any], ended: Any, tmp_path: Path, stage: str) -> None:
    settings = given | {"mix": "1", "out": tmp_path / "run"}
    with pytest.raises(KeyboardInterrupt, match="the same command continues"):
        rlprune.search(**settings, progress=Interrupting(stage, 2))
    result = rlprune.search(**settings)
    whole = next(row for row in ended.result["methods"] if row["method"] == "mix 1")
    assert result["methods"][0]["test_accuracy"] == whole["test_accuracy"]
    assert same_weights(tmp_path / "run" / "pruned", ended.folder / "mix-1" / "pruned")


def test_an_agent_that_remembers(given: dict[str, Any], tmp_path: Path) -> None:
    settings = given | {"mix": "0.5", "agent": "recurrent-ppo", "rounds": 1}
    whole = rlprune.search(**settings, out=tmp_path / "whole")
    last = "training, stage 5 of 5: the network under the final agents"
    with pytest.raises(KeyboardInterrupt):
        rlprune.search(**settings, out=tmp_path / "run", progress=Interrupting(last, 2))
    rlprune.search(**settings, out=tmp_path / "run")
    assert same_weights(tmp_path / "run" / "pruned", tmp_path / "whole" / "pruned")
    module = rlprune.load(tmp_path / "whole")
    assert isinstance(module, SkippingNetwork)
    assert module.runtime.policy is not None
    assert module.runtime.policy.recurrent
    found = rlprune.eval(source=tmp_path / "whole", device="cpu")
    assert found["test_accuracy"] == pytest.approx(whole["methods"][0]["test_accuracy"])


def test_every_method_stands_on_the_page_beside_the_others(ended: Any) -> None:
    page = (ended.folder / "report.html").read_text(encoding="utf-8")
    assert "5 runs side by side" in page
    assert all(name.replace(" ", "-") in page for name in METHODS)
    table = pd.read_csv(ended.folder / "mix-0.5" / "ratios.csv")
    assert (table["kept_p5"] <= table["kept"] + 0.01).all()
    assert (table["kept_p95"] <= table["stored"]).all()
    rlprune.report(runs=[ended.folder / "mix-0.5"], out=ended.folder / "one.html")
    assert "batches of images an agent has learnt from" in (ended.folder / "one.html").read_text(encoding="utf-8")


def test_a_finished_run_is_read(ended: Any) -> None:
    assert rlprune.search(**ended.settings)["methods"] == ended.result["methods"]


def test_the_command_line(run: Callable[..., Any], ended: Any) -> None:
    done = run("search", *flags(ended.settings))
    assert done.code == 0
    assert "mean over images" in done.out
    assert all(name in done.out for name in METHODS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": "0.3:0.6"}, "wants one --budget"),
        ({"budget": "params=0.5"}, "bounds the MACs alone"),
        ({"budget": "latency=0.5"}, "bounds the MACs alone"),
        ({"budget": 0.01}, "cannot be met: only 2 of 3 groups can be chosen image by image"),
        ({"mix": "1.5"}, "expected numbers from 0 to 1"),
        ({"mix": "a"}, "expected numbers from 0 to 1"),
        ({"mix": "0.5,0.5"}, "expected numbers from 0 to 1"),
        ({"controls": "fps"}, "did you mean 'fbs'"),
        ({"agent": "sac"}, "agents are ppo, or recurrent-ppo"),
        ({"tunings": 5}, "--tunings 5 is for --mode static"),
        ({"model": "resnet20,vgg11"}, "works for a single network"),
        ({"mode": "dynamic"}, "known: runtime, static"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(
    given: dict[str, Any], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as error:
        rlprune.search(**given | {"out": tmp_path / "run"} | change)
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


def test_what_a_kill_leaves_of_the_last_stage_does_no_harm(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = given | {"mix": "1", "rounds": 1, "out": tmp_path / "run"}
    remove = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name == "stage-1.pt":
            raise KeyboardInterrupt
        remove(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(KeyboardInterrupt):
        rlprune.search(**settings)
    monkeypatch.setattr(Path, "unlink", remove)
    assert (tmp_path / "run" / "state" / "stage-1.pt").is_file()
    assert rlprune.search(**settings)["methods"][0]["test_accuracy"] > 0
    assert not list((tmp_path / "run" / "state").glob("*.pt"))


@pytest.mark.parametrize("place", ["METHOD_FORMAT", "write_result", "write_run_page"])
def test_a_kill_among_the_last_files_does_no_harm(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    settings = given | {"mix": "1", "rounds": 1}
    whole = rlprune.search(**settings, out=tmp_path / "whole")
    method = runtime.METHOD_FORMAT
    write: Any = method.write if place == "METHOD_FORMAT" else getattr(runtime, place)

    def killed(*arguments: Any) -> None:
        write(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        # The first of such files is there, and nothing more.
        patch.setattr(runtime, place, SimpleNamespace(write=killed) if place == "METHOD_FORMAT" else killed)
        with pytest.raises(KeyboardInterrupt):
            rlprune.search(**settings, out=tmp_path / "run")
    result = rlprune.search(**settings, out=tmp_path / "run")
    assert list(result) == list(whole)
    assert [row["test_accuracy"] for row in result["methods"]] == [row["test_accuracy"] for row in whole["methods"]]
    left, expected = ({path.relative_to(tmp_path / name).as_posix() for path in (tmp_path / name).rglob("*")
                       if path.is_file() and "tensorboard" not in path.parts} for name in ("run", "whole"))  # fmt: skip
    assert left == expected
