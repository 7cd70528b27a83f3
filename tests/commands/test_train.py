from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from workshop import Interrupting

import rlprune
from rlprune.errors import UserError


def test_an_interrupted_training_ends_like_one_that_was_not(shop: Any, tmp_path: Path) -> None:
    settings = shop.settings | {"epochs": 6, "out": tmp_path / "again" / "dense.safetensors"}
    with pytest.raises(KeyboardInterrupt):
        rlprune.train(**settings, progress=Interrupting("training the dense network", 20))
    assert [path.name for path in (tmp_path / "again").iterdir()] == ["dense.state"]
    result = rlprune.train(**settings)
    assert [path.name for path in (tmp_path / "again").iterdir()] == ["dense.safetensors"]
    one, other = load_file(shop.checkpoint), load_file(settings["out"])
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    evaluated = rlprune.eval(**shop.settings, checkpoint=settings["out"])
    assert evaluated["test_accuracy"] == result["test_accuracy"] > 0.6


def test_the_file_is_named_after_network_and_data(
    run_json: Callable[..., Any], shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run_json("train", "--model", shop.settings["model"], "--data", shop.settings["data"], "--epochs", "0")
    assert result["checkpoint"] == "net.py_make-folder.safetensors"
    assert [path.name for path in tmp_path.iterdir()] == ["net.py_make-folder.safetensors"]


def test_snapshots_of_the_weights_on_the_way(shop: Any, tmp_path: Path) -> None:
    settings = shop.settings | {"epochs": 3, "snapshots": 4, "out": tmp_path / "dense.safetensors"}
    with pytest.raises(KeyboardInterrupt):
        rlprune.train(**settings, progress=Interrupting("training the dense network", 20))
    result = rlprune.train(**settings)
    folder = tmp_path / "dense.snapshots"
    assert result["snapshots"] == str(folder)
    first, *_, last = found = sorted(folder.iterdir())
    assert [path.name for path in found] == [f"000{place}-of-0004.safetensors" for place in (1, 2, 3, 4)]
    dense = load_file(settings["out"])
    assert all(torch.equal(value, dense[name]) for name, value in load_file(last).items())
    assert any(not torch.equal(value, dense[name]) for name, value in load_file(first).items())
    # They are what kmp and kgp read.
    how = {"checkpoint": settings["out"], "criterion": f"kmp:snapshots={folder}", "finetune_epochs": 0}
    rlprune.search(**shop.search | how | {"out": tmp_path / "run"})
    with pytest.raises(UserError, match="holds snapshots of another training: remove it, or choose another --out"):
        rlprune.train(**settings)


def test_no_snapshots_of_no_training(shop: Any) -> None:
    with pytest.raises(UserError, match="--snapshots 4: there is nothing on the way of --epochs 0"):
        rlprune.train(**shop.settings | {"epochs": 0, "snapshots": 4})
