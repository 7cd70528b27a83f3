"""`rlprune search --mode runtime`, from the settings to what is loaded."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from workshop import Interrupting, flags, same_weights

import rlprune
from rlprune.data.dataset import load_data
from rlprune.errors import UserError
from rlprune.gating.skipping import SkippingNetwork
from rlprune.pipeline import gated_search as runtime
from rlprune.utils.progress import Progress

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


BETWEEN = """
import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1, padding_mode="reflect")
        self.normed = nn.Conv2d(12, 24, 3, stride=2, padding=1, padding_mode="reflect")
        self.inner = nn.Conv2d(24, 24, 3, padding=1, padding_mode="circular")
        self.last = nn.Conv2d(24, 24, 3, padding=1)
        self.head = nn.Linear(24, classes)

    def forward(self, images):
        images = F.relu(self.normed(F.relu(self.stem(images))))
        images = images / (images.square().mean(1, keepdim=True) + 1e-4).sqrt()
        images = F.relu(self.last(F.relu(self.inner(input=images))))
        return self.head(images.mean((2, 3)))


def make(num_classes):
    return Net(num_classes)
"""


class Noting(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_a_layer_whose_gate_is_not_sound_stays_whole_and_is_named(
    shop: Any, given: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "between.py").write_text(BETWEEN)
    settings = given | {"model": f"{tmp_path / 'between.py'}:make", "mix": "0.5", "rounds": 1, "budget": 0.7}
    settings |= {"checkpoint": tmp_path / "dense.safetensors"}
    rlprune.train(**shop.settings | {"model": settings["model"]}, epochs=2, out=settings["checkpoint"])
    told = Noting()
    result = rlprune.search(**settings, out=tmp_path / "run", progress=told)
    reason = "left out, its channels give other outputs than zeroed: something before their readers mixes channels"
    assert f"no gate for normed: {reason}" in told.notes
    module = rlprune.load(tmp_path / "run")
    assert isinstance(module, SkippingNetwork)
    assert [wire.layer for wire in module.gated.wires] == ["stem", "inner", "last"]
    test = load_data(settings["data"]).test
    images, labels = test.take(torch.arange(len(test)))
    alone, ran = [], []
    for image in images:
        with FlopCounterMode(display=False) as counter:
            alone.append(module(image[None]))
        ran.append(counter.get_total_flops() / 2)
    assert (torch.cat(alone).argmax(1) == labels).float().mean().item() == pytest.approx(result["finetuned_accuracy"])
    assert sum(ran) / len(ran) == pytest.approx(result["macs_ratio"] * result["dense_macs"])


def test_layers_the_user_excludes_have_no_gate(given: dict[str, Any], tmp_path: Path) -> None:
    result = rlprune.search(**given | {"mix": "0.5", "rounds": 1, "exclude": "stem", "budget": 0.8}, out=tmp_path)
    module = rlprune.load(tmp_path)
    assert isinstance(module, SkippingNetwork)
    assert [wire.layer for wire in module.gated.wires] == ["last"]
    found = rlprune.eval(source=tmp_path, device="cpu")
    assert found["test_accuracy"] == pytest.approx(result["finetuned_accuracy"])
    assert found["macs_ratio"] == pytest.approx(result["macs_ratio"], rel=1e-3)


def test_a_folder_that_is_not_what_was_measured_is_no_result(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a factory that builds another network the next time."""

    def other(folder: Path) -> Any:
        module = rlprune.load(folder)
        module.gated.network.last.bias.data += torch.linspace(-3, 3, len(module.gated.network.last.bias))
        return module

    monkeypatch.setattr("rlprune.pipeline.gated_results.load", other)
    with pytest.raises(UserError, match=r"is not to be used: loaded and run image by image it is not the network that"):
        rlprune.search(**given | {"mix": "0.5", "rounds": 1}, out=tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_network_with_nothing_to_choose_is_refused_before_anything_is_written(
    given: dict[str, Any], tmp_path: Path
) -> None:
    body = BETWEEN.replace("F.relu(self.stem(images))", "self.stem(images).softmax(1)")
    body = body.replace("F.relu(self.inner(input=images))", "self.inner(images).softmax(1)")
    body = body.replace("F.relu(self.last", "F.softmax(self.last").replace("softmax(1)))\n", "softmax(1)), 1)\n")
    body = body.replace("images.mean((2, 3))", "images.softmax(1).mean((2, 3))")
    (tmp_path / "net.py").write_text(body)
    settings = given | {"model": f"{tmp_path / 'net.py'}:make", "checkpoint": None}
    with pytest.raises(UserError, match=r"no layer of this network can be skipped image by image: of stem, left out"):
        rlprune.search(**settings, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
