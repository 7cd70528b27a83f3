"""A few of the damaged files that `scripts/checks/fuzz.py` makes by the hundred thousand."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "checks" / "fuzz.py"


def test_damaged_files_end_in_errors_for_people() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", SCRIPT, "--inputs", "600"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "600 damaged files for 20 readers: 0 escaped" in done.stdout
