"""What was measured comes back, whatever a crash left of it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlprune.errors import UserError
from rlprune.runs.journal import Journal
from rlprune.tasks.base import Evaluation

RATIOS = np.array([0.3, 0.4])


def add(journal: Journal, *counts: int, loss: float = 0.5, accuracy: float = 0.5) -> None:
    journal.add(np.array(counts), Evaluation(loss, accuracy), RATIOS, "search", None, 1.5)


@given(st.floats(allow_nan=False), st.floats(0, 1), st.lists(st.integers(1, 999), min_size=1).map(tuple))
def test_evaluations_come_back_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, loss: float, accuracy: float, counts: tuple[int, ...]
) -> None:
    path = tmp_path_factory.mktemp("run") / "episodes.csv"
    add(Journal(path), *counts, loss=loss, accuracy=accuracy)
    again = Journal(path)
    assert again.known() == {counts: Evaluation(loss, accuracy)}
    assert (len(again), again.seconds()) == (1, 1.5)


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_line_that_was_cut_short_is_dropped(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "episodes.csv"
    journal = Journal(path)
    for number in (1, 2):
        add(journal, number, 16)
    path.write_bytes(path.read_bytes()[:-cut])
    again, left = Journal(path), path.read_bytes()
    assert again.rows == journal.rows[: len(again)]
    known = len(again)
    assert known < 2
    assert path.read_bytes() == left  # looking changes nothing
    add(again, 9, 9)
    assert list(Journal(path).known()) == [*list(journal.known())[:known], (9, 9)]


@pytest.mark.parametrize(
    "line",
    [
        "2,search,0.5,0.5,0.3,0.4,,1.5,",
        "2,search,x,0.5,0.3,0.4,,1.5,8 8",
        "2,search,0.5,0.5",
        "2,search,1,1,1,1,,nan,8 8",
    ],
)
def test_a_line_that_is_damaged_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "episodes.csv"
    add(Journal(path), 8, 8)
    add(Journal(path), 4, 8)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], line, lines[2]]) + "\n")
    with pytest.raises(UserError, match=r"episodes\.csv is damaged in line 3: remove that line and all after it"):
        Journal(path)


def test_no_text_at_all(tmp_path: Path) -> None:
    (tmp_path / "episodes.csv").write_bytes(b"\xff\xfe\n")
    with pytest.raises(UserError, match="is damaged, it is no text"):
        Journal(tmp_path / "episodes.csv")
