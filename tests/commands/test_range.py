"""One search for a range of budgets; any of them is landed afterwards."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from workshop import Interrupting, episodes, flags

import rlprune
from rlprune.errors import UserError

EVALUATIONS = 40
"""10 for the curves of the three groups, 14 for the rules of seven budgets, 16 for the agent."""


@pytest.fixture(scope="module")
def ranged(shop: Any) -> Any:
    folder = shop.root / "ranged"
    settings = shop.search | {"budget": "0.1:0.5", "evaluations": EVALUATIONS}
    return SimpleNamespace(folder=folder, settings=settings, result=rlprune.search(**settings, out=folder))


def test_a_policy_and_a_front(ranged: Any) -> None:
    result, rows = ranged.result, episodes(ranged.folder)
    assert len(rows) == result["evaluations"] == EVALUATIONS
    assert [plan["budget"] for plan in result["plans"]][::6] == ["macs=0.1", "macs=0.5"]
    assert result["budget_words"] == "keep 10 to 50 % of the MACs (remove 50 to 90 %)"
    for plan in result["plans"]:
        assert plan["macs_ratio"] <= float(plan["budget"].removeprefix("macs="))
        assert plan["search_loss"] <= plan["base_loss"]
    front = pd.read_csv(ranged.folder / "front.csv")
    assert len(front) == result["front_plans"]
    known = {row["counts"]: float(row["loss"]) for row in rows}
    assert all(known[row.counts] == row.loss for row in front.itertuples())
    assert not (ranged.folder / "plan.json").exists()
    page = (ranged.folder / "report.html").read_text()
    assert "Accuracy and cost" in page
    assert "Fine-tuning</h2>" not in page


@pytest.mark.parametrize("budget", ["0.1", "0.23", "0.5"])
def test_any_budget_is_landed_without_a_search(
    run_json: Callable[..., Any], ranged: Any, kept_macs: Callable[[Path], float], tmp_path: Path, budget: str
) -> None:
    """With four evaluations: the plans of the policy, of the rule, and the two nearest."""
    out = tmp_path / "landed"
    settings = ["--budget", budget, "--evaluations", 4, "--out", out, "--device", "cpu"]
    result = run_json("replay", ranged.folder, *settings)
    assert result["evaluations"] <= 4
    assert result["search_loss"] <= min(result["policy_loss"], result["base_loss"])
    assert 0.9 * float(budget) < kept_macs(out) <= float(budget)
    for plan in ranged.result["plans"]:
        if plan["budget"] == f"macs={budget}":
            assert result["search_loss"] <= plan["search_loss"] + 1e-12


def test_without_evaluations_the_policy_is_trusted(ranged: Any, tmp_path: Path) -> None:
    result = rlprune.replay(source=ranged.folder, budget=0.3, device="cpu", out=tmp_path / "landed")
    assert result["evaluations"] == 0
    assert 0.27 < result["macs_ratio"] <= 0.3


def test_the_command_line(run: Callable[..., Any], ranged: Any) -> None:
    ended = run("search", *flags(ranged.settings | {"out": ranged.folder}))
    assert ended.code == 0
    assert "macs=0.1" in ended.out
    assert f"rlprune replay {ranged.folder} --budget B" in ended.out


def test_an_interrupted_range_continues(ranged: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt, match="the same command continues"):
        rlprune.search(**ranged.settings, out=folder, progress=Interrupting("searching", 30))
    result = rlprune.search(**ranged.settings, out=folder)
    assert result["plans"] == ranged.result["plans"]
    assert (folder / "front.csv").read_bytes() == (ranged.folder / "front.csv").read_bytes()
    assert json.loads((folder / "result.json").read_text())["front_plans"] == ranged.result["front_plans"]


def test_mistakes(shop: Any, ranged: Any, tmp_path: Path) -> None:
    ranges = ranged.settings | {"out": tmp_path / "run"}
    with pytest.raises(UserError, match="with --reward balance the agent itself decides"):
        rlprune.search(**ranges | {"reward": "balance:macs=1"})
    with pytest.raises(UserError, match="need 24 before the agent takes a step"):
        rlprune.search(**ranges | {"evaluations": 23})
    with pytest.raises(UserError, match="is below what is feasible"):
        rlprune.search(**ranges | {"budget": "0.0001:0.5"})
    with pytest.raises(UserError, match=r"serves 0\.1:0\.5, say which one"):
        rlprune.replay(source=ranged.folder, out=tmp_path / "run")
    with pytest.raises(UserError, match="is a range, for which only search learns"):
        rlprune.replay(source=ranged.folder, budget="0.2:0.3", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
