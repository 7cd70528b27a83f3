from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from workshop import Interrupting, same_weights

import rlprune
from rlprune.errors import UserError


@pytest.fixture
def pruned(searched: Any, tmp_path: Path) -> Path:
    rlprune.prune(plan=searched.folder, device="cpu", out=tmp_path / "pruned")
    return tmp_path / "pruned"


def test_fine_tuning_is_that_of_the_search(
    run_json: Callable[..., Any], shop: Any, searched: Any, pruned: Path, tmp_path: Path
) -> None:
    settings = ("--epochs", 2, "--device", "cpu", "--teacher", shop.checkpoint)
    result = run_json("finetune", pruned, *settings, "--out", tmp_path / "tuned")
    assert same_weights(tmp_path / "tuned", searched.folder)
    assert not same_weights(pruned, searched.folder)
    assert result["before"] == searched.result["oneshot_accuracy"]
    assert result["after"] == searched.result["finetuned_accuracy"]
    assert {path.name for path in (tmp_path / "tuned").iterdir()} == {
        "plan.json",
        "model.safetensors",
        "config.json",
        "README.md",
    }
    in_place = run_json("finetune", pruned, *settings)
    assert in_place | {"pruned": "", "seconds": 0} == result | {"pruned": "", "seconds": 0}
    assert same_weights(pruned, searched.folder)
    assert {path.name for path in pruned.iterdir()} == {"plan.json", "model.safetensors", "config.json", "README.md"}


@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_interrupted_fine_tuning_continues(
    shop: Any, searched: Any, pruned: Path, tmp_path: Path, elsewhere: bool
) -> None:
    out = tmp_path / "tuned" if elsewhere else None
    settings: dict[str, Any] = {"source": pruned, "epochs": 2, "device": "cpu", "out": out, "teacher": shop.checkpoint}
    with pytest.raises(KeyboardInterrupt):
        rlprune.finetune(**settings, progress=Interrupting("fine-tuning", 10))
    assert not same_weights(pruned, searched.folder)
    rlprune.finetune(**settings)
    assert same_weights(out or pruned, searched.folder)
    assert not list(tmp_path.rglob("*.state"))


def test_a_run_is_fine_tuned_in_its_pruned_folder(searched: Any, pruned: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    pruned.rename(run / "pruned")
    result = rlprune.finetune(source=run, epochs=1, lr=1e-3, device="cpu")
    assert result["pruned"] == str(run / "pruned")
    assert rlprune.eval(source=run, device="cpu")["test_accuracy"] == result["after"]


def test_a_teacher_is_the_dense_network(searched: Any, shop: Any, tmp_path: Path) -> None:
    replayed = tmp_path / "replayed"
    told = rlprune.replay(source=searched.folder, device="cpu", finetune_epochs=2, out=replayed)
    rlprune.prune(plan=replayed, checkpoint=shop.checkpoint, device="cpu", out=tmp_path / "pruned")
    settings: dict[str, Any] = {"source": tmp_path / "pruned", "epochs": 2, "device": "cpu"}
    rlprune.finetune(**settings, out=tmp_path / "alone")
    taught = rlprune.finetune(**settings, out=tmp_path / "taught", teacher=shop.checkpoint)
    assert same_weights(tmp_path / "taught", replayed)
    assert not same_weights(tmp_path / "taught", tmp_path / "alone")
    assert taught["after"] == told["finetuned_accuracy"]
    untaught = tmp_path / "untaught"
    rlprune.replay(source=searched.folder, device="cpu", finetune_epochs=2, distill=False, out=untaught)
    assert same_weights(tmp_path / "alone", untaught)


def test_a_teacher_is_of_the_same_network(pruned: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.safetensors"):
        rlprune.finetune(source=pruned, teacher=pruned / "model.safetensors", device="cpu", out=tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
