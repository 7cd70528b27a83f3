"""Kernels instead of channels: searched, cut, loaded, tuned, exported."""

import json
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from workshop import macs, same_weights

import rlprune
from rlprune.errors import UserError
from rlprune.plans.plan import PruningPlan

UNIT = "kernel-group:groups=4"
EVALUATIONS = 40


@pytest.fixture(scope="module")
def run(shop: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("kernels") / "run"
    settings = shop.search | {"unit": UNIT, "budget": 0.3, "evaluations": EVALUATIONS}
    return SimpleNamespace(folder=folder, settings=settings, result=rlprune.search(**settings, out=folder))


def test_costs_are_those_of_the_network_that_is_loaded(run: Any) -> None:
    network = rlprune.load(run.folder)
    assert run.result["pruned_macs"] == macs(network)
    assert run.result["pruned_params"] == sum(part.numel() for part in network.parameters())
    assert 0.28 < run.result["macs_ratio"] <= 0.3
    assert run.result["unit"] == "kernel-group"
    table = pd.read_csv(run.folder / "ratios.csv")
    assert table["group"].tolist() == ["stem", "inner", "outer", "last"]
    assert table["channels"].tolist() == [3, 16, 32, 32]
    assert table["macs_after"].sum() == macs(network) - 48 * 3
    # A layer keeps its place and its number of outputs; each of 4 groups reads as many slices.
    for row in table.to_dict("records"):
        layer = network.get_submodule(row["group"])
        conv = layer.get_submodule("conv") if row["kept"] < row["channels"] else layer
        assert isinstance(conv, nn.Conv2d)
        assert conv.weight.shape[1] == row["kept"]
        assert conv.groups == (4 if row["kept"] < row["channels"] else 1)


def test_the_plan_says_which_filters_keep_which_slices(run: Any) -> None:
    data = json.loads((run.folder / "plan.json").read_text())
    assert data["unit"] == "kernel-group"
    assert data["provenance"]["unit"] == UNIT
    assert "criterion" not in data["provenance"]
    card = (run.folder / "pruned" / "README.md").read_text()
    assert "with fewer kernels" in card
    assert f"- unit that went: `{UNIT}`" in card
    network, cut = rlprune.load(run.folder), 0
    for name, group in data["groups"].items():
        assert "kept" not in group
        if "slices" not in group:
            assert group["slices_kept"] == group["channels"]
            continue
        cut += 1
        assert sorted(chain(*group["filters"])) == list(range(network.get_submodule(name).outputs.numel()))
        assert {len(slices) for slices in group["slices"]} == {group["slices_kept"]}
        assert network.get_buffer(f"{name}.inputs").tolist() == list(chain(*group["slices"]))
    assert cut
    table = pd.read_csv(run.folder / "ratios.csv")
    assert PruningPlan.load(run.folder / "plan.json").counts().tolist() == table["kept"].tolist()


def test_what_was_evaluated_is_what_was_cut(run: Any, shop: Any) -> None:
    """The dense network with zeros, its statistics set anew, has the accuracy of the network that was cut."""
    cut = rlprune.prune(plan=run.folder, checkpoint=shop.checkpoint, out=run.folder.parent / "again", device="cpu")
    found = rlprune.eval(source=Path(cut["pruned"]), device="cpu")
    assert found["test_accuracy"] == pytest.approx(run.result["oneshot_accuracy"])
    assert (found["macs"], found["params"]) == (run.result["pruned_macs"], run.result["pruned_params"])
    assert found["macs_ratio"] == pytest.approx(run.result["macs_ratio"])
    dense = load_file(shop.checkpoint)
    weights, plan = load_file(Path(cut["pruned"]) / "model.safetensors"), json.loads(Path(cut["plan"]).read_text())
    for name, group in plan["groups"].items():
        if "slices" in group:
            expected = [
                dense[f"{name}.weight"][one][mine]
                for filters, mine in zip(group["filters"], group["slices"], strict=True)
                for one in filters
            ]
            assert torch.equal(weights[f"{name}.conv.weight"], torch.stack(expected))


def test_the_same_command_ends_the_same(run: Any, tmp_path: Path) -> None:
    again = rlprune.search(**run.settings, out=tmp_path / "again")
    assert again["search_loss"] == run.result["search_loss"]
    assert same_weights(run.folder, tmp_path / "again")


def test_it_is_tuned_further(run: Any, tmp_path: Path) -> None:
    result = rlprune.finetune(source=run.folder, epochs=1, out=tmp_path / "tuned", device="cpu")
    assert result["before"] == pytest.approx(run.result["finetuned_accuracy"])
    network = rlprune.load(tmp_path / "tuned")
    assert macs(network) == run.result["pruned_macs"]
    assert (
        PruningPlan.load(tmp_path / "tuned" / "plan.json").kernels == PruningPlan.load(run.folder / "plan.json").kernels
    )


@pytest.mark.parametrize("format", ["onnx", "torch-export", "python"])
def test_it_is_exported(run: Any, tmp_path: Path, format: str) -> None:
    """Exporters compare what they have written with the network."""
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    out = tmp_path / {"onnx": "net.onnx", "torch-export": "net.pt2", "python": "net"}[format]
    result = rlprune.export(source=run.folder, format=format, out=out)
    assert Path(result["path"]).stat().st_size > 0
    assert result.get("max_error", 0) < 1e-4


def test_tables_of_ratios_are_for_tools_that_know_kernels(run: Any) -> None:
    assert rlprune.export(source=run.folder, format="csv")["text"] == (run.folder / "ratios.csv").read_text()
    for format in ("torch-pruning", "nni", "amc"):
        for source in (run.folder, run.folder / "plan.json"):
            with pytest.raises(UserError, match=f"cuts kernels, and {format} takes ratios of channels: export the net"):
                rlprune.export(source=source, format=format)


def test_ratios_are_landed_on_a_budget(run: Any, shop: Any, tmp_path: Path) -> None:
    settings = shop.settings | {"checkpoint": shop.checkpoint, "unit": UNIT}
    ratios = run.folder / "ratios.csv"
    found = rlprune.prune(**settings, ratios=ratios, budget="macs=0.5", out=tmp_path / "half")
    assert 0.47 < found["macs_ratio"] <= 0.5
    assert macs(rlprune.load(tmp_path / "half")) == found["pruned_macs"]
    same = rlprune.prune(**settings, ratios=ratios, out=tmp_path / "same")
    assert same["pruned_macs"] == run.result["pruned_macs"]
    there, here = (PruningPlan.load(folder / "plan.json").kernels for folder in (run.folder, tmp_path / "same"))
    assert there == here


def test_allocators_and_agents_compete(shop: Any, tmp_path: Path) -> None:
    settings = shop.search | {"unit": UNIT, "budget": 0.3, "evaluations": EVALUATIONS, "finetune_epochs": 0}
    methods = "uniform,global-l1,sensitivity,additive-dp,evolution"
    result = rlprune.compare(**settings, methods=methods, seeds=1, out=tmp_path / "compared")
    assert {row["method"] for row in result["methods"]} == set(methods.split(","))
    plan = PruningPlan.load(tmp_path / "compared" / "plans" / "evolution-0.json")
    assert plan.kernels is not None
    table = pd.read_csv(tmp_path / "compared" / "cells.csv")
    assert (table["macs_ratio"] <= 0.3).all()


def test_inspect_says_what_stays_whole(shop: Any) -> None:
    model = {"model": shop.settings["model"], "data": shop.settings["data"], "device": "cpu"}
    found = rlprune.inspect(**model, unit="kernel-group", exclude="outer")
    assert [group["group"] for group in found["groups"]] == ["stem", "inner", "last"]
    assert found["refused"] == {"outer": "it is excluded by 'outer'"}
    assert [group["traps"] for group in found["groups"]][1:] == [[], []]
    # All filters of 3, 16 and 32 inputs with one left, and the others whole.
    whole, one = 16 * 16 * 9 * 16 * 3, 16 * 16 * 9 * 16
    assert found["groups"][0]["macs_share"] == pytest.approx((whole - one) / found["macs"])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"budget": "latency=0.5"},
            "latencies are modelled for channels: with --unit kernel-group bound macs or params",
        ),
        ({"round_to": "auto"}, "--round-to auto is measured of channels: with --unit kernel-group name a number"),
        ({"criterion": "taylor"}, "--criterion taylor scores channels, and with --unit kernel-group those slices stay"),
        ({"mode": "runtime"}, "--mode runtime chooses channels at run time: leave --unit kernel-group out"),
        ({"decide": "channels,blocks"}, "--decide blocks is for channels"),
        ({"group": "stem > inner"}, "--group declares groups of channels"),
        ({"include": "head"}, "unknown layer in --include 'head'"),
        ({"unit": "kernels"}, "unknown unit 'kernels'"),
        ({"unit": "kernel-group:group=4"}, "unknown setting of unit kernel-group 'group': did you mean 'groups'"),
        ({"unit": "kernel-group:snapshots=nowhere"}, "nowhere holds no snapshots of a training: expected a folder"),
        ({"budget": 0.01}, "the smallest possible is macs="),
    ],
)
def test_mistakes(shop: Any, tmp_path: Path, more: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        rlprune.search(**shop.search | {"unit": "kernel-group"} | more, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_a_plan_of_kernels_cannot_do(run: Any, shop: Any, tmp_path: Path) -> None:
    common = {"plan": run.folder, "out": tmp_path / "cut", "device": "cpu"}
    with pytest.raises(
        UserError, match=r"says which kernels stay; land its ratios with --ratios .* --unit kernel-group"
    ):
        rlprune.prune(**common, budget=0.2)
    with pytest.raises(UserError, match="says itself what goes, leave it out"):
        rlprune.prune(**common, unit="kernel-group")
    with pytest.raises(UserError, match="only policies of channels are replayed"):
        rlprune.replay(source=run.folder, out=tmp_path / "cut", device="cpu")
    assert not (tmp_path / "cut").exists()


def damaged(run: Any, folder: Path, change: Any) -> Path:
    for name in ("plan.json", "model.safetensors"):
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes((run.folder / "pruned" / name).read_bytes())
    plan, weights = json.loads((folder / "plan.json").read_text()), load_file(folder / "model.safetensors")
    name = next(name for name, group in plan["groups"].items() if "slices" in group)
    change(plan["groups"][name], weights, name)
    (folder / "plan.json").write_text(json.dumps(plan))
    save_file(weights, folder / "model.safetensors")
    return folder


def far(group: Any, weights: Any, name: str) -> None:
    group["slices"][0][-1] = group["channels"] + 1


def twice(group: Any, weights: Any, name: str) -> None:
    group["filters"][0][0] = group["filters"][1][0]


def fewer(group: Any, weights: Any, name: str) -> None:
    weights[f"{name}.conv.weight"] = weights[f"{name}.conv.weight"][:, 1:].contiguous()


def elsewhere(group: Any, weights: Any, name: str) -> None:
    weights[f"{name}.inputs"] = weights[f"{name}.inputs"] + 10**6


def fractions(group: Any, weights: Any, name: str) -> None:
    weights[f"{name}.outputs"] = weights[f"{name}.outputs"].float()


def absent(group: Any, weights: Any, name: str) -> None:
    del weights[f"{name}.inputs"]


def many(group: Any, weights: Any, name: str) -> None:
    group["channels"] = group["slices_kept"] = 10**12
    del group["slices"], group["filters"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (far, "is not a complete plan"),
        (twice, "is not a complete plan"),
        (many, "is not a complete plan"),
        (fewer, r"does not fit its own plan: '\w+\.conv\.weight' is \("),
        (elsewhere, "has other inputs in its weights"),
        (fractions, "has other outputs in its weights"),
        (absent, "is only in one of them"),
    ],
)
def test_damaged_folders_are_refused(run: Any, tmp_path: Path, change: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        rlprune.load(damaged(run, tmp_path / "damaged", change))
