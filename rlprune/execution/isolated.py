"""One of our functions in a fresh process, where nothing that happened before can disturb what it measures."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from rlprune.errors import UserError
from rlprune.models.trust import allowed, remember


def run_isolated(function: Callable[..., Any], *, threads: int, **arguments: Any) -> Any:
    """Call a function of this package in a process of its own.

    Args:
        function: one at the top of a module of `rlprune`.
        threads: what OpenMP is told to take there, before any library starts.
        arguments: what JSON can hold.

    Returns:
        What it returns, as JSON has it.

    Raises:
        UserError: what the function raised, or that the process died.
    """
    package = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": paths}
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        name = f"{function.__module__}:{function.__name__}"
        # What libraries print there is neither ours nor the result.
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "rlprune.execution.isolated", name, str(answer)],
            input=json.dumps({"arguments": arguments, "named": allowed()}),
            env=environment,
            capture_output=True,
            text=True,
        )
        if not answer.is_file():
            last = next(iter(done.stderr.strip().splitlines()[-1:]), "no message")
            raise UserError(f"the process that measures ended with code {done.returncode}: {last}")
        content = json.loads(answer.read_text())
    if "error" in content:
        raise UserError(content["error"])
    return content["result"]


def _answer(name: str, path: Path, arguments: dict[str, Any], named: list[str]) -> None:
    for model in named:
        remember(model)
    module, _, function = name.partition(":")
    try:
        content = {"result": getattr(import_module(module), function)(**arguments)}
    except UserError as error:
        content = {"error": str(error)}
    path.write_text(json.dumps(content))


if __name__ == "__main__":
    _answer(sys.argv[1], Path(sys.argv[2]), **json.load(sys.stdin))
