"""`rlprune export`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from rlprune.commands.base import command
from rlprune.config.commands import Export
from rlprune.errors import UserError
from rlprune.exports.ratios import export_table
from rlprune.plans.plan import PruningPlan
from rlprune.plans.ratio_table import read_any
from rlprune.utils.files import write_atomic
from rlprune.utils.progress import Progress

Written = Callable[[Export, Progress], dict[str, Any]]
PRINTED = ("md", "latex", "html")
EXCHANGE = ("torch-pruning", "nni", "amc")
"""Ratios as other tools take them."""
ENDINGS = {"latex": "tex", "torch-pruning": "json", "nni": "json", "amc": "txt"}


@command(Export)
def export(given: Export, progress: Progress) -> dict[str, Any]:
    """The ratio table of a run or a plan in another form, as `text` or written to `out`, or the network itself."""
    if given.format in NETWORKS:
        return NETWORKS[given.format](given, progress)
    if given.out is not None and given.out.is_dir():
        name = f"ratios.{ENDINGS.get(given.format, given.format)}"
        raise UserError(f"--out {given.out} is a folder: name a file such as {given.out / name}")
    if given.format in EXCHANGE:
        _require_channels(given.source, given.format)
    table = export_table(_table(given.source, given.format in PRINTED), given.format)
    if given.out is None:
        return {"text": table}
    data = table.encode() if isinstance(table, str) else table
    write_atomic(given.out, lambda path: path.write_bytes(data))
    return {"path": str(given.out)}


def _require_channels(source: Path, tool: str) -> None:
    """UserError where a plan is of kernels, which ratios of other tools cannot say."""
    path = source / "plan.json" if source.is_dir() else source
    if path.suffix == ".json" and path.is_file() and PruningPlan.load(path).kernels is not None:
        raise UserError(
            f"{source} cuts kernels, and {tool} takes ratios of channels: export the network itself, with "
            "--format onnx, torch-export or python"
        )


def _table(source: Path, printed: bool) -> pd.DataFrame:
    if source.is_dir() and (source / "ratios.csv").is_file():
        table = read_any(source / "ratios.csv")
    else:
        table = PruningPlan.load(source / "plan.json" if source.is_dir() else source).table()
    # What is not known is an empty cell to people, and a missing number to programs.
    return table.astype({name: object for name in table if table[name].isna().any()}).fillna("") if printed else table


def _program(given: Export, progress: Progress) -> dict[str, Any]:
    from rlprune.commands.export_standalone import export_program

    return export_program(given, progress)


def _python(given: Export, progress: Progress) -> dict[str, Any]:
    from rlprune.commands.export_standalone import export_python

    return export_python(given, progress)


def _onnx(given: Export, progress: Progress) -> dict[str, Any]:
    from rlprune.commands.export_onnx import export_onnx

    return export_onnx(given, progress)


NETWORKS: dict[str, Written] = {"torch-export": _program, "python": _python, "onnx": _onnx}
"""Formats of the network itself, and what writes them; each brings its libraries when it is asked for."""
