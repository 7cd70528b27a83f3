import json
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rlprune.errors import UserError
from rlprune.utils.files import (
    FileFormat,
    is_empty,
    new_folder,
    remove_unfinished,
    require_writable,
    write_atomic,
    write_text,
)


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "file.json"
    FileFormat("thing", 2).write(path, {"name": "ü"})
    assert json.loads(path.read_text()) == {"format": "thing", "version": 2, "name": "ü"}
    assert FileFormat("thing", 3).read(path) == {"name": "ü"}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def fails(temporary: Path) -> None:
        temporary.write_text("half")
        assert path.read_text() == "old"
        raise KeyError

    with pytest.raises(KeyError):
        write_atomic(path, fails)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_had_begun_to_write_does_not_count_and_goes(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom rlprune.utils.files import write_atomic\n"
        "write_atomic(Path(sys.argv[1]), lambda path: (path.write_text('half'), os.kill(os.getpid(), signal.SIGKILL)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run" / "state" / "run.json")])
    assert done.returncode == -signal.SIGKILL
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1
    assert is_empty(tmp_path)
    for name in (".hidden", ".5", "1.csv"):
        write_text(tmp_path / name, "mine")
        assert not is_empty(tmp_path)
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [".5", ".hidden", "1.csv"]


def test_the_temporary_file_has_the_suffix(tmp_path: Path) -> None:
    """Writers of pictures go by it."""
    write_atomic(tmp_path / "plot.png", lambda temporary: temporary.write_text(temporary.suffix))
    assert (tmp_path / "plot.png").read_text() == ".png"


def test_others_may_read(tmp_path: Path) -> None:
    write_text(tmp_path / "file.txt", "")
    assert (tmp_path / "file.txt").stat().st_mode & 0o777 == 0o644


def test_no_folder_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for write in (lambda: write_text(tmp_path / "file" / "new.txt", ""), lambda: require_writable(tmp_path / "file")):
        with pytest.raises(UserError, match=r"cannot write to .*file"):
            write()


def test_new_folder(tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "a" / "b")
    assert new_folder(folder).is_dir()
    (folder / "file").write_text("")
    for used in (folder, folder / "file"):
        with pytest.raises(UserError, match="exists and is not empty: choose another --out"):
            new_folder(used)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a file of the format thing"),
        (json.dumps({"format": "other", "version": 1}), "is not a file of the format thing"),
        (json.dumps({"format": "thing"}), "has format version None"),
        (json.dumps({"format": "thing", "version": 3}), "has format version 3; this rlprune reads up to 2"),
        (json.dumps({"format": "thing", "version": 1}), "has format version 1; this rlprune reads from 2 on: make it"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(UserError, match=re.escape(said)):
        FileFormat("thing", 2, oldest=2).read(tmp_path / "file.json")


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*: No such file"):
        FileFormat("thing").read(tmp_path / "file.json")
    with pytest.raises(UserError, match=r"cannot read .*: Is a directory"):
        FileFormat("thing").read(tmp_path)


def test_a_full_disk_is_said_and_leaves_what_was_there(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk; every writer of ours meets it in its own way."""
    path = tmp_path / "weights.safetensors"
    write_text(path, "before")
    large = {"weight": torch.zeros(1 << 18)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, limits[1]))
        for write in (
            lambda: write_text(path, "x" * (1 << 20)),
            lambda: write_atomic(path, lambda place: save_file(large, place)),
            lambda: write_atomic(path, lambda place: torch.save(large, place)),
        ):
            with pytest.raises(UserError, match=r"cannot write .*weights\.safetensors: .*(too large|disk full)"):
                write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_an_error_of_the_writer_itself_stays_what_it_is(tmp_path: Path) -> None:
    def broken(place: Path) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        write_atomic(tmp_path / "file", broken)
