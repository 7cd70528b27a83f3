"""Budgets of latency, on a machine whose every layer takes a known time; no clock is asked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from workshop import Interrupting, flags, kept

import rlprune
from rlprune.errors import UserError
from rlprune.latency.layers import Layer, find_layers, read_layer
from rlprune.latency.lookup import time_layers
from rlprune.latency.timing import build, time_networks
from rlprune.models.registry import rebuild_model
from rlprune.utils.shapes import Shape


def truth(layer: Layer, outputs: int, inputs: int, call: float) -> float:
    """Milliseconds: blocks of four outputs, and what every call costs."""
    return 1e-4 * -(-outputs // 4) * 4 * inputs * len(layer.kernel) + call


class Machine:
    """Single layers take what they take, networks 1.4 times their sum."""

    def __init__(self) -> None:
        self.cells = self.networks = 0
        self.factor = 1.4
        self.surprise = 1.0
        self.call = 0.002

    def milliseconds(self, module: Any, shape: Shape) -> float:
        return self.factor * sum(truth(layer, *layer.shape, self.call) for _, layer in find_layers(module, shape))

    def __call__(self, function: object, **asked: Any) -> Any:
        if function is time_layers:
            self.cells += 1
            return [truth(read_layer(layer), outputs, inputs, self.call) for layer, outputs, inputs in asked["shapes"]]
        assert function is time_networks
        self.networks += 1
        # Networks that the model has not seen.
        late = [self.surprise if "counts" in subject and self.networks > 1 else 1.0 for subject in asked["subjects"]]
        # Where a process of its own builds them, nothing is drawn here.
        with torch.random.fork_rng():
            networks = [build(subject) for subject in asked["subjects"]]
        times = [self.milliseconds(*each) * factor for each, factor in zip(networks, late, strict=True)]
        return [[*times, times[0]]] * 3


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    machine = Machine()
    monkeypatch.setattr("rlprune.latency.lookup.cache_folder", lambda: tmp_path / "cache")
    for place in ("lookup", "cost"):
        monkeypatch.setattr(f"rlprune.latency.{place}.run_isolated", machine)
    return machine


def ratio(machine: Machine, folder: Path) -> float:
    network = json.loads((folder / "plan.json").read_text())["network"]
    dense, pruned = rebuild_model(network).eval(), rlprune.load(folder)
    return machine.milliseconds(pruned, (3, 16, 16)) / machine.milliseconds(dense, (3, 16, 16))


def episodes(folder: Path) -> list[list[float]]:
    """Loss and best loss of every evaluation."""
    return pd.read_csv(folder / "episodes.csv")[["loss", "best_loss"]].fillna(-1).to_numpy().tolist()


@pytest.mark.parametrize(
    "words", [["--budget", "latency=0.5"], ["--budget", "macs=0.9,latency=0.5", "--round-to", "4"]]
)
def test_a_plan_takes_half_the_time(
    run_json: Callable[..., Any], shop: Any, searched: Any, machine: Machine, tmp_path: Path, words: list[str]
) -> None:
    plan = ["--plan", searched.folder / "plan.json", "--checkpoint", shop.checkpoint, "--device", "cpu"]
    result = run_json("prune", *plan, *words, "--backend", "onnxruntime", "--threads", "2", "--out", tmp_path / "half")
    # Steps of four channels of sixteen are coarse.
    assert (0.4 if "--round-to" in words else 0.475) < ratio(machine, tmp_path / "half") <= 0.525
    told = result["latency"]
    assert told["pruned_ms"] / told["dense_ms"] == pytest.approx(ratio(machine, tmp_path / "half"))
    assert (told["backend"], told["batch"], told["threads"]) == ("onnxruntime", 1, 2)
    if "--round-to" in words:
        assert all(len(indices) % 4 == 0 for indices in kept(tmp_path / "half").values())
    cells = machine.cells
    run_json("prune", *plan, *words, "--backend", "onnxruntime", "--threads", "2", "--out", tmp_path / "again")
    assert kept(tmp_path / "again") == kept(tmp_path / "half")
    # Layers and samples are remembered; only the final plan is measured.
    assert machine.cells == cells


def test_a_time_in_milliseconds(
    run: Callable[..., Any], shop: Any, searched: Any, machine: Machine, tmp_path: Path
) -> None:
    dense = machine.milliseconds(
        build({"network": json.loads((searched.folder / "plan.json").read_text())["network"]})[0], (3, 16, 16)
    )
    plan = ["--plan", searched.folder / "plan.json", "--checkpoint", shop.checkpoint, "--device", "cpu"]
    code, out, err = run("prune", *plan, "--budget", f"latency={0.4 * dense:.4f}ms", "--out", tmp_path / "fast")
    assert code == 0, err
    assert ratio(machine, tmp_path / "fast") == pytest.approx(0.4, rel=0.05)
    assert f"take ≤ {0.4 * dense:.4g}"[:10] in out
    for budget, said in (
        ("latency=9000ms", "the dense network takes only"),
        ("latency=0.001ms", "the smallest possible is latency="),
        ("latency=0.001", "the smallest possible is latency="),
    ):
        code, out, err = run("prune", *plan, "--budget", budget, "--out", tmp_path / "none")
        assert (code, out) == (2, "")
        assert said in err
        assert ("what helps: " in err) == ("the smallest possible" in said)
    assert not (tmp_path / "none").exists()


def test_a_search_continues_with_what_it_measured(shop: Any, machine: Machine, tmp_path: Path) -> None:
    settings = shop.search | {"budget": "macs=0.8,latency=0.5", "finetune_epochs": 0, "threads": 1}
    result = rlprune.search(**settings, out=tmp_path / "whole")
    assert ratio(machine, tmp_path / "whole") == pytest.approx(0.5, rel=0.05)
    assert result["latency"]["pruned_ms"] / result["latency"]["dense_ms"] == ratio(machine, tmp_path / "whole")
    names = json.loads((tmp_path / "whole" / "policy" / "policy.json").read_text())
    assert "used_latency" in json.dumps(names)
    assert "used_macs" in json.dumps(names)
    with pytest.raises(KeyboardInterrupt):
        rlprune.search(**settings, out=tmp_path / "parts", progress=Interrupting("searching", 20))
    asked = machine.cells, machine.networks
    (tmp_path / "cache").rename(tmp_path / "gone")
    again = rlprune.search(**settings, out=tmp_path / "parts")
    assert machine.cells == asked[0]
    assert kept(tmp_path / "parts") == kept(tmp_path / "whole")
    assert again["search_loss"] == result["search_loss"]


def test_overhead_is_told_before_the_search_and_with_its_result(
    run: Callable[..., Any], shop: Any, machine: Machine, tmp_path: Path
) -> None:
    """Five calls take 2.1 ms, the dense network's arithmetic 0.64: 80 % of it is hardly more than the calls."""
    machine.call = 0.42
    settings = shop.search | {"budget": "latency=0.8", "finetune_epochs": 0, "threads": 1}
    code, out, err = run("search", *flags(settings), "--out", tmp_path / "run")
    assert code == 0, err
    told = "overhead bounds latency=0.8: with the fewest channels the network still takes 7"
    assert err.count(told) == 1
    assert err.index(told) < err.index("searching")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["macs_ratio"] < 0.2
    assert result["latency"]["pruned_ms"] / result["latency"]["dense_ms"] == pytest.approx(0.8, rel=0.05)
    (warning,) = result["latency"]["warnings"]
    assert warning.startswith(told)
    assert f"warning   {warning}" in out


@pytest.mark.parametrize(
    "damage",
    [
        {"layers_ms": [0.1]},
        {"layers_ms": 3},
        {"networks_ms": [1.0, 2.0]},
        {"networks_ms": ["fast"]},
        {"corrections": [None]},
        {"corrections": [-1.0]},
        {"corrections": [float("nan")]},
        {"round_to": {}},
        {"round_to": True},
    ],
)
def test_damaged_measurements(shop: Any, machine: Machine, tmp_path: Path, damage: dict[str, Any]) -> None:
    settings = shop.search | {"budget": "latency=0.5", "finetune_epochs": 0, "threads": 1}
    with pytest.raises(KeyboardInterrupt):
        rlprune.search(**settings, out=tmp_path / "run", progress=Interrupting("searching", 3))
    path = tmp_path / "run" / "latency.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    with pytest.raises(UserError, match=r"latency.json is damaged: remove it, and what it holds is measured again"):
        rlprune.search(**settings, out=tmp_path / "run")
    path.unlink()
    rlprune.search(**settings, out=tmp_path / "run")


def test_the_model_is_corrected_while_there_is_something_to_search(shop: Any, machine: Machine, tmp_path: Path) -> None:
    """All networks but those of the fit take 1.2 times what it says."""
    machine.surprise = 1.2
    settings = shop.search | {"budget": "latency=0.6", "finetune_epochs": 0, "threads": 1, "evaluations": 40}
    result = rlprune.search(**settings, out=tmp_path / "whole")
    assert 1.2 * ratio(machine, tmp_path / "whole") == pytest.approx(0.6, rel=0.05)
    first, *others = json.loads((tmp_path / "whole" / "latency.json").read_text())["corrections"]
    assert first == pytest.approx(1.2, rel=0.05)
    assert others == pytest.approx([1.0, 1.0], rel=0.05)
    # Fit, three corrections, and the final plan, which then needs no other.
    assert machine.networks == 5
    for evaluations in (25, 36):
        with pytest.raises(KeyboardInterrupt):
            rlprune.search(**settings, out=tmp_path / "parts", progress=Interrupting("searching", evaluations))
    (tmp_path / "cache").rename(tmp_path / "gone")
    again = rlprune.search(**settings, out=tmp_path / "parts")
    assert kept(tmp_path / "parts") == kept(tmp_path / "whole")
    assert again["search_loss"] == result["search_loss"]
    assert episodes(tmp_path / "parts") == episodes(tmp_path / "whole")


def test_methods_compete_under_a_latency(shop: Any, machine: Machine, tmp_path: Path) -> None:
    settings = shop.search | {"budget": "latency=0.6", "finetune_epochs": 0, "methods": "uniform,ppo", "seeds": 1}
    result = rlprune.compare(**settings, out=tmp_path / "contest")
    assert result["budget_words"] == "keep ≤ 60 % of the latency (remove ≥ 40 %)"
    assert (tmp_path / "contest" / "latency.json").is_file()


@pytest.mark.parametrize("trained", ["macs=0.3", "latency=0.6"])
def test_a_replay_meets_a_latency(shop: Any, machine: Machine, tmp_path: Path, trained: str) -> None:
    """Whether the policy has seen latencies before or not."""
    settings = shop.search | {"budget": trained, "finetune_epochs": 0}
    rlprune.search(**settings, out=tmp_path / "run")
    there = {"source": tmp_path / "run", "device": "cpu", "backend": "onnxruntime", "threads": 2}
    result = rlprune.replay(**there, budget="latency=0.5", out=tmp_path / "fast")
    assert ratio(machine, tmp_path / "fast") == pytest.approx(0.5, rel=0.05)
    assert (result["latency"]["backend"], result["evaluations"]) == ("onnxruntime", 0)
    assert (tmp_path / "fast" / "latency.json").is_file()
    if trained.startswith("latency"):
        with pytest.raises(UserError, match="trained to see 'used_latency', which is not shown here: give a budget"):
            rlprune.replay(**there, budget=0.3, out=tmp_path / "small")
        assert not (tmp_path / "small").exists()
