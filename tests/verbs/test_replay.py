import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rlprune
from rlprune.errors import UserError


@pytest.mark.parametrize("budget", ["0.15", "0.4", "macs=0.5,params=0.3"])
def test_another_budget(
    run_json: Callable[..., Any], searched: Any, kept_macs: Callable[[Path], float], tmp_path: Path, budget: str
) -> None:
    out = tmp_path / "replayed"
    result = run_json("replay", searched.folder, "--budget", budget, "--out", out, "--device", "cpu")
    assert math.isfinite(result["search_loss"])
    assert result["finetuned_accuracy"] is None
    # Nine cuts, the dense network, the base plan and the policy's.
    assert result["evaluations"] <= 12
    macs = float(budget.removeprefix("macs=").partition(",")[0])
    assert kept_macs(out) <= macs
    if "params" in budget:
        parameters = sum(parameter.numel() for parameter in rlprune.load(out).parameters())
        assert 0.25 * result["dense_params"] < parameters <= 0.3 * result["dense_params"]
    else:
        assert kept_macs(out) > 0.9 * macs
    assert json.loads((out / "result.json").read_text())["budget"].startswith("macs=")


def test_another_checkpoint(shop: Any, searched: Any, kept_macs: Callable[[Path], float], tmp_path: Path) -> None:
    rlprune.train(**shop.settings, seed=1, epochs=2, out=tmp_path / "other.safetensors")
    settings = {"source": searched.folder, "checkpoint": tmp_path / "other.safetensors", "device": "cpu"}
    result = rlprune.replay(**settings, finetune_epochs=1, out=tmp_path / "replayed")
    assert math.isfinite(result["search_loss"])
    assert kept_macs(tmp_path / "replayed") <= 0.15
    assert result["finetuned_accuracy"] == rlprune.eval(source=tmp_path / "replayed", device="cpu")["test_accuracy"]
    again = rlprune.replay(**settings, out=tmp_path / "again")
    assert again["search_loss"] == result["search_loss"]
    assert again["table"] == result["table"]


def test_the_new_folder_stands_beside_the_run(searched: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "run"
    copy.symlink_to(searched.folder, target_is_directory=True)
    monkeypatch.chdir(searched.folder)
    result = rlprune.replay(source=".", budget=0.5, device="cpu")
    assert result["run"] == f"{searched.folder}-replay-macs=0.5"


def test_a_run_without_a_policy(searched: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no policy: expected a run folder whose search has ended"):
        rlprune.replay(source=searched.folder / "pruned", out=tmp_path / "replayed")
    assert not (tmp_path / "replayed").exists()
