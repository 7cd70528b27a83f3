"""How many processes read images by default; what they do is tested with the images."""

import os

import pytest

from rlprune.data.readers import usual_workers


@pytest.mark.parametrize(
    ("cores", "files", "workers"), [(1, 10**6, 0), (2, 10**6, 1), (16, 10**6, 8), (96, 10**6, 8), (16, 1999, 0)]
)
def test_every_second_core_reads_where_there_is_much_to_read(
    monkeypatch: pytest.MonkeyPatch, cores: int, files: int, workers: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    assert usual_workers(files) == workers
