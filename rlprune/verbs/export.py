"""`rlprune export`."""

from pathlib import Path
from typing import Any

import pandas as pd

from rlprune.config import Export, resolve
from rlprune.errors import UserError
from rlprune.files import write_atomic
from rlprune.formats import export_table
from rlprune.plan import PruningPlan
from rlprune.progress import Progress
from rlprune.table import read_table

ENDINGS = {"latex": "tex", "torch-pruning": "json", "nni": "json", "amc": "txt"}


def export(*, config: Path | None = None, progress: Progress | None = None, **settings: Any) -> dict[str, Any]:
    """The ratio table of a run or a plan in another form, as `text` or written to `out`.

    Args:
        config: YAML file of settings, below those given here.
        progress: not needed; there for all verbs to be alike.
        settings: see `rlprune.settings.Export`.

    Raises:
        UserError: whatever cannot be used.
    """
    given = resolve(Export, settings, config)
    table = export_table(_table(given.source), given.format)
    if given.out is None:
        return {"text": table}
    if given.out.is_dir():
        name = f"ratios.{ENDINGS.get(given.format, given.format)}"
        raise UserError(f"--out {given.out} is a folder: name a file such as {given.out / name}")
    data = table.encode() if isinstance(table, str) else table
    write_atomic(given.out, lambda path: path.write_bytes(data))
    return {"path": str(given.out)}


def _table(source: Path) -> pd.DataFrame:
    if source.is_dir() and (source / "ratios.csv").is_file():
        return read_table(source / "ratios.csv")
    return PruningPlan.load(source / "plan.json" if source.is_dir() else source).table()
