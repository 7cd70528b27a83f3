"""Plans of kernels in files."""

import json
from pathlib import Path
from typing import Any

import pytest

from rlprune.errors import UserError
from rlprune.graph.kernels import KernelCut
from rlprune.plans.plan import PruningPlan

CUT = KernelCut(((0, 3), (1, 2)), ((0, 2), (2, 4)))
PLAN = PruningPlan(
    {"a": (0, 1), "b": (0, 1, 2)}, {"a": 5, "b": 3}, layers={"a": ("a",), "b": ("b",)}, kernels={"a": CUT}
)


def test_the_file_of_a_plan(tmp_path: Path) -> None:
    PLAN.save(tmp_path / "plan.json")
    data = json.loads((tmp_path / "plan.json").read_text())
    assert data["unit"] == "kernel-group"
    assert data["groups"] == {
        "a": {
            "channels": 5,
            "layers": ["a"],
            "slices_kept": 2,
            "filters": [[0, 3], [1, 2]],
            "slices": [[0, 2], [2, 4]],
        },
        "b": {"channels": 3, "layers": ["b"], "slices_kept": 3},
    }
    assert PruningPlan.load(tmp_path / "plan.json") == PLAN
    assert PLAN.table()["keep_ratio"].tolist() == [0.4, 1.0]


def test_a_plan_of_channels_says_nothing_of_kernels(tmp_path: Path) -> None:
    PruningPlan({"a": (0, 4)}, {"a": 5}).save(tmp_path / "plan.json")
    assert "unit" not in json.loads((tmp_path / "plan.json").read_text())
    assert PruningPlan.load(tmp_path / "plan.json").kernels is None


@pytest.mark.parametrize(
    "change",
    [
        {"slices_kept": 0},
        {"slices_kept": 3},
        {"slices_kept": 1.5},
        {"slices_kept": 6},
        {"slices_kept": 5},
        {"channels": 4},
        {"channels": 10**12, "slices_kept": 10**12},
        {"filters": [[0, 3], [1, 1]]},
        {"filters": [[0, 3, 1, 2]]},
        {"filters": 4},
        {"slices": [[0, 2], [2, -1]]},
        {"slices": [[0, 2], [2]]},
        {"slices": [[0, 2], [2, 5]]},
        {"slices": [[0, 2], [2, "4"]]},
        {"slices": None},
    ],
)
def test_what_is_no_plan(tmp_path: Path, change: dict[str, Any]) -> None:
    PLAN.save(tmp_path / "plan.json")
    data = json.loads((tmp_path / "plan.json").read_text())
    data["groups"]["a"] |= change
    (tmp_path / "plan.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match="is not a complete plan"):
        PruningPlan.load(tmp_path / "plan.json")


def test_another_unit_is_of_a_newer_version(tmp_path: Path) -> None:
    PLAN.save(tmp_path / "plan.json")
    path = tmp_path / "plan.json"
    path.write_text(path.read_text().replace("kernel-group", "heads"))
    with pytest.raises(UserError, match="it is of the unit 'heads'"):
        PruningPlan.load(path)


@pytest.mark.parametrize(("first", "second"), [(PLAN, PLAN), (PLAN, PruningPlan({}, {})), (PruningPlan({}, {}), PLAN)])
def test_it_makes_no_single_plan_with_another(first: PruningPlan, second: PruningPlan) -> None:
    with pytest.raises(UserError, match="a plan of kernel groups and another plan make no single one"):
        first.then(second)
