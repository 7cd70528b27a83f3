from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from workshop import NET, write_waves

import rlprune
from rlprune.config.commands import Search
from rlprune.config.resolve import as_dict
from rlprune.pipeline.plans import plan_of
from rlprune.pipeline.recover import prune_and_recover
from rlprune.pipeline.results import costs
from rlprune.plans.plan import PruningPlan
from rlprune.utils.progress import Progress
from rlprune.workloads.workload import Workload, open_workload

COUNTS = np.array([3, 5, 7])


@pytest.fixture
def given(tmp_path: Path) -> Search:
    write_waves(tmp_path / "waves", train=20, test=5)
    (tmp_path / "net.py").write_text(NET)
    settings = {"model": f"{tmp_path / 'net.py'}:make", "data": f"folder:{tmp_path / 'waves'}", "device": "cpu"}
    return Search(**settings, model_args="width=4", search_images=12, calibration_images=9, budget=0.5, workers=2)  # type: ignore[arg-type]


@pytest.fixture
def workload(given: Search) -> Workload:
    return open_workload(as_dict(given) | {"workers": 0}, Progress())


def test_costs_by_hand(workload: Workload) -> None:
    # 16 x 16 positions in the first layer, 8 x 8 behind its stride; three classes.
    def macs(a: int, b: int, c: int) -> int:
        return 3 * a * 9 * 256 + (a * b + b * b + b * c) * 9 * 64 + 3 * c

    def params(a: int, b: int, c: int) -> int:
        return (3 * a + a * b + b * b + b * c) * 9 + 2 * a + 2 * b + 2 * b + c + 3 * c + 3

    assert costs(workload, COUNTS) == {
        "macs_ratio": macs(3, 5, 7) / macs(4, 8, 12),
        "params_ratio": params(3, 5, 7) / params(4, 8, 12),
        "dense_macs": macs(4, 8, 12),
        "pruned_macs": macs(3, 5, 7),
        "dense_params": params(4, 8, 12),
        "pruned_params": params(3, 5, 7),
    }


def test_a_plan_keeps_the_best_and_knows_where_it_comes_from(workload: Workload, given: Search) -> None:
    scores = np.arange(24.0)
    plan = plan_of(workload, COUNTS, scores, given)
    assert plan.kept == {"stem": (1, 2, 3), "inner": (3, 4, 5, 6, 7), "last": (5, 6, 7, 8, 9, 10, 11)}
    assert plan.network == workload.network
    assert plan.provenance["dense_weights"] == workload.weights()
    # How images are read makes no difference to what they are.
    assert plan.provenance["data_settings"] == {
        "data": given.data, "search_images": 12, "calibration_images": 9,
    }  # fmt: skip


@pytest.mark.parametrize("epochs", [0, 1])
def test_what_is_written(workload: Workload, given: Search, tmp_path: Path, epochs: int) -> None:
    plan = plan_of(workload, COUNTS, np.arange(24.0), given)
    before = {name: tensor.clone() for name, tensor in workload.module.state_dict().items()}
    result = prune_and_recover(workload, plan, tmp_path / "out", epochs, given, Progress())
    assert all(torch.equal(tensor, before[name]) for name, tensor in workload.module.state_dict().items())
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    expected = {"plan.json", "ratios.csv", "pruned/plan.json", "pruned/model.safetensors", "pruned/config.json"}
    expected |= {"pruned/README.md"}
    assert written == expected | ({"finetune.csv"} if epochs else set())
    assert (
        PruningPlan.load(tmp_path / "out" / "plan.json") == plan == PruningPlan.load(tmp_path / "out/pruned/plan.json")
    )
    assert pd.read_csv(tmp_path / "out" / "ratios.csv")["kept"].tolist() == [3, 5, 7]
    assert (result["finetuned_accuracy"] is None) == (not epochs)
    assert rlprune.load(tmp_path / "out").state_dict()["head.weight"].shape == (3, 7)
