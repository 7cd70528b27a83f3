import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from workshop import kept, write_waves

import rlprune
from rlprune.errors import UserError


@pytest.mark.parametrize("budget", ["0.15", "0.4", "macs=0.5,params=0.3"])
def test_another_budget(
    run_json: Callable[..., Any], searched: Any, kept_macs: Callable[[Path], float], tmp_path: Path, budget: str
) -> None:
    out = tmp_path / "replayed"
    result = run_json("replay", searched.folder, "--budget", budget, "--out", out, "--device", "cpu")
    assert result["evaluations"] == 0
    assert result["home"]["kind"] == "the very network it was trained on"
    assert result["home"]["distance"] == 0
    assert result["finetuned_accuracy"] is None
    macs = float(budget.removeprefix("macs=").partition(",")[0])
    assert kept_macs(out) <= macs
    if "params" in budget:
        parameters = sum(parameter.numel() for parameter in rlprune.load(out).parameters())
        assert 0.25 * result["dense_params"] < parameters <= 0.3 * result["dense_params"]
    else:
        assert kept_macs(out) > 0.9 * macs
    assert json.loads((out / "result.json").read_text())["budget"].startswith("macs=")


@pytest.fixture(scope="module")
def other(shop: Any) -> Path:
    """The same network with other weights."""
    path = shop.root / "other.safetensors"
    rlprune.train(**shop.settings, seed=1, epochs=2, out=path)
    return path


def test_another_checkpoint(
    shop: Any, searched: Any, other: Path, kept_macs: Callable[[Path], float], tmp_path: Path
) -> None:
    """No evaluation is made: not one plan is run on the search images."""
    settings = {"source": searched.folder, "checkpoint": other, "device": "cpu"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rlprune.evaluation.evaluator.Evaluator.__call__", pytest.fail)
        result = rlprune.replay(**settings, finetune_epochs=1, out=tmp_path / "replayed")
    assert (result["evaluations"], result["search_loss"], result["policy_loss"]) == (0, None, None)
    assert result["home"]["kind"] == "the same architecture with other weights"
    assert 0 < result["home"]["distance"] < 5
    assert 0.1 < kept_macs(tmp_path / "replayed") <= 0.15
    assert result["finetuned_accuracy"] == rlprune.eval(source=tmp_path / "replayed", device="cpu")["test_accuracy"]
    again = rlprune.replay(**settings, out=tmp_path / "again")
    assert again["table"] == result["table"]


@pytest.mark.parametrize("evaluations", [1, 2, 6, 12, 14])
def test_evaluations_refine(searched: Any, other: Path, tmp_path: Path, evaluations: int) -> None:
    settings = {"source": searched.folder, "checkpoint": other, "device": "cpu"}
    result = rlprune.replay(**settings, evaluations=evaluations, out=tmp_path / "replayed")
    assert 1 <= result["evaluations"] <= evaluations
    assert result["search_loss"] <= result["policy_loss"]
    if evaluations > 1:
        assert result["search_loss"] <= result["base_loss"]
    else:
        assert result["base_loss"] in (None, result["policy_loss"])


def test_the_policy_alone_is_enough(
    run_json: Callable[..., Any], searched: Any, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(searched.folder / "policy", tmp_path / "pocket")
    monkeypatch.chdir(tmp_path)
    far = run_json("replay", "pocket", "--checkpoint", other, "--out", "far", "--device", "cpu")
    near = run_json("replay", searched.folder, "--checkpoint", other, "--out", "near", "--device", "cpu")
    assert far["table"] == near["table"]
    assert kept(tmp_path / "far") == kept(tmp_path / "near")


def test_other_images_of_more_classes(shop: Any, searched: Any, tmp_path: Path) -> None:
    """The network there is trained first, for what the checkpoint of the run knows are other classes."""
    write_waves(tmp_path / "waves", classes="abcde", train=20, test=4)
    settings = {"data": f"folder:{tmp_path / 'waves'}", "train_epochs": 1, "device": "cpu"}
    result = rlprune.replay(source=searched.folder, **settings, out=tmp_path / "replayed")
    assert result["home"]["kind"] == "the same architecture, on another data set"
    assert rlprune.load(tmp_path / "replayed").head.out_features == 5
    assert result["macs_ratio"] <= 0.15


@pytest.mark.parametrize(
    ("there", "kind"),
    [
        (["--model-args", "width=8"], "another depth or width of "),
        (["--model", "mobilenetv2", "--model-args", "width=0.15"], "another family than "),
    ],
)
def test_another_network(run: Callable[..., Any], searched: Any, tmp_path: Path, there: list[str], kind: str) -> None:
    out = tmp_path / "replayed"
    settings = [*there, "--train-epochs", 1, "--budget", "0.3", "--out", out, "--device", "cpu"]
    ended = run("replay", searched.folder, *settings)
    assert ended.code == 0, ended.err
    assert kind in ended.out
    assert "distance" in ended.out
    assert "0 evaluations" in ended.out
    result = json.loads((out / "result.json").read_text())
    assert 0.27 < result["macs_ratio"] <= 0.3
    assert result["home"]["distance"] > 0


def test_a_checkpoint_that_is_gone(searched: Any, tmp_path: Path) -> None:
    shutil.copytree(searched.folder / "policy", tmp_path / "pocket")
    path = tmp_path / "pocket" / "policy.json"
    data = json.loads(path.read_text())
    data["settings"]["checkpoint"] = "gone.safetensors"
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match=r"--checkpoint is missing: that of the search, gone.safetensors, is not here"):
        rlprune.replay(source=tmp_path / "pocket", out=tmp_path / "replayed")
    assert not (tmp_path / "replayed").exists()


def test_the_new_folder_stands_beside_the_run(searched: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "run"
    copy.symlink_to(searched.folder, target_is_directory=True)
    monkeypatch.chdir(searched.folder)
    result = rlprune.replay(source=".", budget=0.5, device="cpu")
    assert result["run"] == f"{searched.folder}-replay-macs=0.5"


def test_a_run_without_a_policy(searched: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no policy: expected a run folder whose search has ended, or its"):
        rlprune.replay(source=searched.folder / "pruned", out=tmp_path / "replayed")
    assert not (tmp_path / "replayed").exists()
