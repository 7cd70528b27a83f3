"""What version 0.1.0 has written is read, replayed and continued; its documented names still work, with a warning."""

import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from workshop import Interrupting, episodes, kept, macs

import rlprune
from rlprune.agents.policy import load_policy
from rlprune.gating.skipping import SkippingNetwork
from rlprune.models.registry import rebuild_model
from rlprune.plans.plan import PruningPlan

OLD = Path(__file__).parent / "data" / "version-0.1.0"
SETTINGS: dict[str, Any] = {
    "model": "resnet20", "model_args": "width=0.15", "data": "digits", "device": "cpu", "search_images": 60,
    "calibration_images": 40, "checkpoint": "dense.safetensors", "budget": 0.4, "evaluations": 44, "finetune_epochs": 1,
}  # fmt: skip


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of everything, where it was written: its paths are relative."""
    shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    monkeypatch.setattr("rlprune.agents.search.rounds.WALKS", 16)
    monkeypatch.setattr("rlprune.agents.search.rounds.ROLLOUTS", 1)
    return tmp_path / "old"


def test_a_pruned_network_is_what_its_plan_says() -> None:
    network, plan = rlprune.load(OLD / "run"), PruningPlan.load(OLD / "run" / "plan.json")
    dense = rebuild_model(plan.network).eval()
    assert macs(network, 32) / macs(dense, 32) == pytest.approx(
        json.loads((OLD / "run" / "result.json").read_text())["macs_ratio"]
    )
    assert torch.isfinite(network(torch.randn(2, 3, 32, 32))).all()


def test_a_network_with_gates() -> None:
    network = rlprune.load(OLD / "gated")
    assert isinstance(network, SkippingNetwork)
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_a_policy_acts_as_it_did() -> None:
    """By a forward pass of its own through the tensors in the file."""
    from safetensors.numpy import load_file

    policy = load_policy(OLD / "run" / "policy")
    seen = np.random.default_rng(0).normal(size=(5, len(policy.names)))
    tensors, values = load_file(OLD / "run" / "policy" / "policy.safetensors"), seen
    for layer in range(3):
        values = values @ tensors[f"{layer}.weight"].T + tensors[f"{layer}.bias"]
        values = np.maximum(values, 0) if layer < 2 else np.clip(values, -1, 1)
    np.testing.assert_allclose(policy.act(seen), values[:, 0], rtol=1e-6)


def test_a_policy_is_replayed(old: Path) -> None:
    result = rlprune.replay(source=old / "run", budget=0.5, out=old / "replayed")
    assert result["home"]["kind"].startswith("the very network")
    assert 0.45 < result["macs_ratio"] <= 0.5


@pytest.mark.parametrize(("distill", "taught"), [(None, False), (False, False), (True, True)])
def test_a_policy_of_a_run_without_a_teacher_is_replayed_without_one(
    old: Path, monkeypatch: pytest.MonkeyPatch, distill: bool | None, taught: bool
) -> None:
    teachers = []
    monkeypatch.setattr("rlprune.pipeline.recover.fit", lambda *args, teacher, **rest: teachers.append(teacher) or [])
    rlprune.replay(source=old / "run", budget=0.5, finetune_epochs=1, distill=distill, out=old / "replayed")
    assert [teacher is not None for teacher in teachers] == [taught]


def test_a_finished_run_returns_its_result(old: Path) -> None:
    assert rlprune.search(**SETTINGS, out=old / "run")["run"] == "run"


def test_an_unfinished_run_continues(old: Path) -> None:
    before = episodes(old / "unfinished")
    with pytest.raises(KeyboardInterrupt):
        rlprune.search(**SETTINGS, out=old / "unfinished", progress=Interrupting("searching", len(before) + 2))
    assert episodes(old / "unfinished")[: len(before)] == before
    assert rlprune.search(**SETTINGS, out=old / "unfinished")["evaluations"] >= 44
    assert set(kept(old / "unfinished")) == set(kept(old / "run"))
    assert "distill: false" in (old / "unfinished" / "config.yaml").read_text()


def test_a_page_is_made_of_it(old: Path) -> None:
    page = rlprune.report(runs=[old / "run", old / "gated"], out=old / "page.html")["page"]
    assert "layer1.0.conv1" in Path(page).read_text()


@pytest.mark.parametrize(
    ("module", "names", "new"),
    [("trace", ["build_graph"], "rlprune.tracing.build"), ("pruner", ["load", "prune"], "rlprune.graph.surgery")],
)
def test_old_names_work_with_a_warning(module: str, names: list[str], new: str) -> None:
    sys.modules.pop(f"rlprune.{module}", None)
    with pytest.warns(DeprecationWarning, match=new):
        found = importlib.import_module(f"rlprune.{module}")
    assert all(callable(getattr(found, name)) for name in names)
