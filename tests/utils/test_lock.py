"""A run folder belongs to one process, for as long as that lives."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlprune.errors import UserError
from rlprune.utils.lock import locked

HOLD = """
import sys, time
from pathlib import Path
from rlprune.utils.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    """A process that has the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_until_the_first_one_is_killed(tmp_path: Path) -> None:
    with hold(tmp_path / "run") as process:
        said = rf"run is in use by process {process.pid} on .+ since .+: wait until it ends, or choose another --out"
        with pytest.raises(UserError, match=said), locked(tmp_path / "run"):
            pytest.fail("it was not locked")
        process.send_signal(signal.SIGKILL)
        process.wait()
        with locked(tmp_path / "run"):
            assert str(os.getpid()) in (tmp_path / "run" / "state" / "owner.json").read_text()


def test_what_those_before_had_begun_to_write_is_gone(tmp_path: Path) -> None:
    half = tmp_path / "pruned" / ".4711.model.safetensors"
    half.parent.mkdir()
    half.write_bytes(b"half")
    with locked(tmp_path):
        assert not half.exists()


def test_it_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    with locked(tmp_path):
        pass
    assert not (tmp_path / "state" / "owner.json").exists()


def test_an_owner_that_cannot_be_read(tmp_path: Path) -> None:
    with locked(tmp_path):
        (tmp_path / "state" / "owner.json").write_text("junk")
        with pytest.raises(UserError, match="is in use: wait until it ends"), locked(tmp_path):
            pytest.fail("it was not locked")
