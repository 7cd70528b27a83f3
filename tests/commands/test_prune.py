from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from workshop import NET, kept, same_weights

import rlprune
from rlprune.models.checkpoint import save_weights
from rlprune.models.registry import build_model


@pytest.mark.parametrize("source", ["plan.json", ""])
def test_a_plan_or_a_run_cuts_the_dense_network(
    run_json: Callable[..., Any], shop: Any, searched: Any, tmp_path: Path, source: str
) -> None:
    checkpoint = ["--checkpoint", shop.checkpoint] if source else []
    result = run_json("prune", "--plan", searched.folder / source, *checkpoint, "--out", tmp_path / "pruned")
    assert {path.name for path in (tmp_path / "pruned").iterdir()} == {
        "plan.json",
        "model.safetensors",
        "config.json",
        "README.md",
    }
    assert kept(tmp_path / "pruned") == kept(searched.folder)
    assert result["macs_ratio"] == searched.result["macs_ratio"]
    # By hand: the kept filters of the first convolution, and of what reads them the kept inputs.
    dense, indices = load_file(shop.checkpoint), kept(searched.folder)
    small = rlprune.load(tmp_path / "pruned").state_dict()
    assert torch.equal(small["stem.weight"], dense["stem.weight"][indices["stem"]])
    assert torch.equal(small["inner.weight"], dense["inner.weight"][indices["inner"]][:, indices["stem"]])
    assert torch.equal(small["head.weight"], dense["head.weight"][:, indices["last"]])
    measured = run_json("eval", tmp_path / "pruned")
    assert measured["test_accuracy"] == searched.result["oneshot_accuracy"]


def test_a_table_of_ratios(run_json: Callable[..., Any], shop: Any, searched: Any, tmp_path: Path) -> None:
    table = tmp_path / "ratios.csv"
    table.write_text("group,keep_ratio\nlast,0.5\nstem,0.25\ninner,1\n")
    settings = ["--model", shop.settings["model"], "--data", shop.settings["data"], "--checkpoint", shop.checkpoint]
    result = run_json("prune", "--ratios", table, *settings, "--out", tmp_path / "pruned")
    assert {row["group"]: row["kept"] for row in result["table"]} == {"stem": 4, "inner": 32, "last": 24}
    # The largest filters of the first convolution stay.
    sizes = load_file(shop.checkpoint)["stem.weight"].abs().sum((1, 2, 3))
    assert set(kept(tmp_path / "pruned")["stem"]) == set(sizes.argsort(descending=True)[:4].tolist())
    rounded = run_json("prune", "--ratios", table, *settings, "--round-to", "16", "--out", tmp_path / "rounded")
    assert {row["group"]: row["kept"] for row in rounded["table"]} == {"stem": 16, "inner": 32, "last": 16}


@pytest.mark.parametrize("format", ["csv", "json", "parquet"])
def test_a_table_makes_the_plan_it_was_made_from(
    run: Callable[..., Any], run_json: Callable[..., Any], shop: Any, searched: Any, tmp_path: Path, format: str
) -> None:
    table, again = tmp_path / f"table.{format}", tmp_path / f"again.{format}"
    assert run("export", searched.folder / "plan.json", "--format", format, "--out", table).code == 0
    settings = ["--model", shop.settings["model"], "--data", shop.settings["data"], "--checkpoint", shop.checkpoint]
    result = run_json("prune", "--ratios", table, *settings, "--out", tmp_path / "pruned")
    known = [row | {"sensitivity": None} for row in searched.result["table"]]
    assert result["table"] == known
    assert all(0 < row["importance_kept"] <= 1 for row in known)
    assert kept(tmp_path / "pruned") == kept(searched.folder)
    # Whoever prunes by a table does not know what its cuts foretell; a second time nothing changes at all.
    assert run("export", tmp_path / "pruned", "--format", format, "--out", again).code == 0
    once = again.read_bytes()
    run_json("prune", "--ratios", again, *settings, "--out", tmp_path / "twice")
    assert run("export", tmp_path / "twice", "--format", format, "--out", again).code == 0
    assert again.read_bytes() == once


def test_an_edited_table(run: Callable[..., Any], shop: Any, searched: Any, tmp_path: Path) -> None:
    table = pd.read_csv(searched.folder / "ratios.csv").set_index("group", drop=False)
    settings = ["--model", shop.settings["model"], "--data", shop.settings["data"], "--checkpoint", shop.checkpoint]

    def prune(edited: pd.DataFrame) -> Any:
        edited.to_csv(tmp_path / "edited.csv", index=False)
        return run("prune", "--ratios", tmp_path / "edited.csv", *settings, "--out", tmp_path / "pruned")

    for edited, said in (
        (table.replace({"group": {"inner": "iner"}}), "unknown group 'iner': did you mean 'inner'?"),
        (table.drop("inner"), "it says nothing about 'inner'"),
        (table.assign(keep_ratio=[0.5, 1.5, 0.5]), "keep ratio '1.5' of 'inner' is not in (0, 1]"),
        (table.assign(kept=[4, 4, 49]), "kept '49' of 'last' is no number of its channels"),
        (pd.concat([table, table.loc[["stem"]].assign(keep_ratio=0.9)]), "gives 'stem' the ratios"),
        (table.assign(layers=["stem", "inner", "last outer"]), "leaves 'outer' out of 'inner'"),
        (table.replace({"group": {"last": "outer"}}), "has a row for 'outer', which is tied to 'inner'"),
    ):
        code, out, err = prune(edited)
        assert (code, out, err.count("rlprune: error:")) == (2, "", 1)
        assert said in err.splitlines()[-1]
        assert not (tmp_path / "pruned").exists()
    code, _, err = prune(table.assign(keep_ratio=[0.25, 0.5, 0.75], kept=[4, 7, 36]))
    assert code == 0
    assert "keep_ratio counts, and not the other kept count of inner" in " ".join(err.split())
    assert {name: len(some) for name, some in kept(tmp_path / "pruned").items()} == {"stem": 4, "inner": 16, "last": 36}


def test_ratios_are_landed_on_a_budget(
    run_json: Callable[..., Any], shop: Any, searched: Any, kept_macs: Callable[[Path], float], tmp_path: Path
) -> None:
    result = run_json("prune", "--plan", searched.folder, "--budget", "0.5", "--out", tmp_path / "pruned")
    assert kept_macs(tmp_path / "pruned") == pytest.approx(result["macs_ratio"], rel=1e-12)
    assert 0.45 < result["macs_ratio"] <= 0.5
    exported = searched.folder / "ratios.csv"
    settings = ["--model", shop.settings["model"], "--data", shop.settings["data"], "--checkpoint", shop.checkpoint]
    again = run_json("prune", "--ratios", exported, *settings, "--budget", "0.5", "--out", tmp_path / "again")
    assert [row["kept"] for row in again["table"]] == [row["kept"] for row in result["table"]]
    table = pd.read_csv(exported)
    assert all(row["kept"] >= old for row, old in zip(result["table"], table["kept"], strict=True))


def test_a_run_that_trained_its_network_is_pruned_alike(shop: Any, tmp_path: Path) -> None:
    settings = {key: value for key, value in shop.search.items() if key != "checkpoint"}
    settings |= {"train_epochs": 1, "finetune_epochs": 0, "seed": 2}
    rlprune.search(**settings, out=tmp_path / "run")
    rlprune.prune(plan=tmp_path / "run", device="cpu", out=tmp_path / "pruned")
    assert same_weights(tmp_path / "pruned", tmp_path / "run")


def test_another_architecture_is_named(
    run: Callable[..., Any], shop: Any, searched: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = ["--data", shop.settings["data"]]
    model = ["--model", "resnet20", "--model-args", "width=0.25"]
    run("train", *model, *data, "--epochs", 0, "--out", "resnet.safetensors")
    settings = [*data, "--checkpoint", "resnet.safetensors", "--out", "pruned"]
    code, out, err = run("prune", "--plan", searched.folder, *model, *settings)
    assert (code, out) == (2, "")
    assert "the plan does not belong to this network: unknown group 'stem'" in err
    code, out, err = run("prune", "--plan", searched.folder, *settings)
    assert (code, out) == (2, "")
    assert "resnet.safetensors does not fit" in err
    code, out, err = run("prune", "--plan", searched.folder, "--model-args", "width=8", *data, "--out", "pruned")
    assert (code, out) == (2, "")
    assert not Path("pruned").exists()


def test_a_run_that_gave_its_network_a_new_head(run_json: Callable[..., Any], shop: Any, tmp_path: Path) -> None:
    """The dense network is trained from the checkpoint's body once; whoever cuts it by the run's plan gets that one."""
    (tmp_path / "net.py").write_text(f"{NET}\n\ndef seven():\n    return Net(7, 16)\n")
    save_weights(build_model(f"{tmp_path}/net.py:seven", classes=3, image_size=16), tmp_path / "seven.safetensors")
    settings = shop.search | {"model": f"{tmp_path}/net.py:seven", "checkpoint": tmp_path / "seven.safetensors"}
    rlprune.search(**settings | {"finetune_epochs": 0}, new_head=True, train_epochs=1, out=tmp_path / "run")
    run_json("prune", "--plan", tmp_path / "run", "--out", tmp_path / "pruned")
    assert same_weights(tmp_path / "pruned", tmp_path / "run")
    assert rlprune.load(tmp_path / "pruned").get_parameter("head.weight").shape[0] == 3
    accuracies = [run_json("eval", tmp_path / name)["test_accuracy"] for name in ("pruned", "run")]
    assert accuracies[0] == accuracies[1]
