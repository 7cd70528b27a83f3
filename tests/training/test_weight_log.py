"""Which steps of a training leave their weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from rlprune.errors import UserError
from rlprune.training.weight_log import WeightLog


def logged(folder: Path, number: int, total: int, begin: int = 1, continued: bool = False) -> list[int]:
    """The steps whose weights are written, of a network whose only weight is the number of the step."""
    net = nn.Linear(1, 1, bias=False)
    log = WeightLog(folder, number, net, continued)
    for step in range(begin, total + 1):
        with torch.no_grad():
            net.weight.fill_(step)
        log(step, total)
    return [int(load_file(path)["weight"]) for path in sorted(folder.iterdir())]


@pytest.mark.parametrize(
    ("number", "total", "steps"),
    [
        (4, 12, [3, 6, 9, 12]),
        (4, 10, [3, 5, 8, 10]),
        (3, 3, [1, 2, 3]),
        (3, 4, [2, 3, 4]),
        (7, 100, [15, 29, 43, 58, 72, 86, 100]),
    ],
)
def test_steps_are_evenly_spaced(tmp_path: Path, number: int, total: int, steps: list[int]) -> None:
    assert logged(tmp_path / "net.snapshots", number, total) == steps
    names = [path.name for path in sorted((tmp_path / "net.snapshots").iterdir())]
    assert names == [f"{place:04}-of-{number:04}.safetensors" for place in range(1, number + 1)]


def test_a_training_that_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "net.snapshots"
    assert len(logged(folder, 4, 12)) == 4
    for path in sorted(folder.iterdir())[2:]:
        path.unlink()
    assert len(logged(folder, 4, 12, begin=7, continued=True)) == 4


def test_a_training_that_was_interrupted_early_starts_over(tmp_path: Path) -> None:
    folder = tmp_path / "net.snapshots"
    assert len(logged(folder, 4, 12)) == 4
    for path in sorted(folder.iterdir())[1:]:
        path.unlink()
    assert logged(folder, 4, 24) == [6, 12, 18, 24]


@pytest.mark.parametrize(
    ("again", "said"),
    [
        ({"number": 4}, "holds snapshots of another training: remove it, or choose another --out"),
        ({"number": 6, "continued": True}, "holds snapshots of another training"),
    ],
)
def test_trainings_are_not_mixed(tmp_path: Path, again: dict[str, Any], said: str) -> None:
    logged(tmp_path / "net.snapshots", 4, 12)
    with pytest.raises(UserError, match=said):
        logged(tmp_path / "net.snapshots", total=12, **again)


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--snapshots 20: the training takes no more than 12 steps"):
        logged(tmp_path / "few.snapshots", 20, 12)
    with pytest.raises(UserError, match=r"begun without --snapshots: remove .*net.state to start over"):
        logged(tmp_path / "net.snapshots", 4, 12, begin=7, continued=True)
