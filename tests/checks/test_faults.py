"""A few of the faults that `scripts/checks/faults.py` provokes by the hundred."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "checks" / "faults.py"


def test_nothing_is_lost() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", SCRIPT, "--kills", "3"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 kills of " in done.stdout
    assert "1 kills of " in done.stdout
    for fault in (
        "a search with `--mode runtime`",
        "full disk",
        "read-only folder",
        "two processes",
        "last record cut short",
        "a clock that jumps",
        "out of memory in an evaluation",
        "a killed reader",
    ):
        assert fault in done.stdout
