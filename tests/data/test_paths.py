"""Paths that many processes share."""

import os
from multiprocessing.reduction import ForkingPickler

import pytest

from rlprune.data.paths import PathTable


def test_paths_are_those_that_were_given() -> None:
    paths = ["a", "/data/überall/ß.png", os.fsdecode(b"not \xff utf-8.jpg"), "", "a b\nc"]
    table = PathTable(paths)
    assert [table[index] for index in range(len(table))] == paths
    assert len(PathTable([])) == 0
    with pytest.raises(ValueError, match="not enough values"):
        table[len(paths)]


def test_processes_get_a_handle_and_not_the_paths() -> None:
    few, many = (len(ForkingPickler.dumps(PathTable(["some/path.jpg"] * count))) for count in (10, 10_000))
    assert many < few + 64 < 2000
