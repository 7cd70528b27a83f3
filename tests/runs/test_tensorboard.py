"""What TensorBoard reads is what was evaluated."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from rlprune.graph.structure import Graph
from rlprune.runs.tensorboard import TensorBoardLog
from rlprune.tasks.base import Evaluation
from rlprune.tracing.build import build_graph


@pytest.fixture
def graph() -> Graph:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    return build_graph(net, torch.zeros(1, 3, 2, 2))


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_curves_and_the_best_plan(tmp_path: Path, graph: Graph) -> None:
    board, best, better = TensorBoardLog(tmp_path, graph), np.array([4, 1]), np.array([2, 4])
    board.add(1, Evaluation(2.0, 0.25), np.array([1.0, 0.5]), None, float("nan"))
    board.add(2, Evaluation(1.5, 0.5), np.array([0.5, 0.25]), best, 1.5)
    board.add(3, Evaluation(3.0, 0.125), np.array([0.5, 0.25]), best, 1.5)
    board.add(4, Evaluation(1.25, 0.75), np.array([0.5, 0.25]), better, 1.25)
    assert scalars(tmp_path / "plans") == {
        "plans/loss": [(1, 2.0), (2, 1.5), (3, 3.0), (4, 1.25)],
        "plans/accuracy": [(1, 0.25), (2, 0.5), (3, 0.125), (4, 0.75)],
        "plans/macs_kept": [(1, 1.0), (2, 0.5), (3, 0.5), (4, 0.5)],
        "plans/params_kept": [(1, 0.5), (2, 0.25), (3, 0.25), (4, 0.25)],
        "plans/best_loss": [(2, 1.5), (3, 1.5), (4, 1.25)],
        "kept/0": [(2, 0.5), (4, 0.25)],
        "kept/1": [(2, 0.25), (4, 1.0)],
    }


def test_a_search_that_continues_goes_on_where_it_ended(tmp_path: Path, graph: Graph) -> None:
    for number in (1, 2):
        TensorBoardLog(tmp_path, graph).add(
            number, Evaluation(2.0 / number, 0.5), np.array([0.5, 0.5]), None, float("nan")
        )
    assert scalars(tmp_path / "plans")["plans/loss"] == [(1, 2.0), (2, 1.0)]
