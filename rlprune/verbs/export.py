"""`rlprune export`."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rlprune.config import Export, resolve
from rlprune.errors import UserError
from rlprune.files import write_atomic
from rlprune.plan import PruningPlan, read_table
from rlprune.progress import Progress
from rlprune.report import export_table


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
        raise UserError(f"--out {given.out} is a folder: name a file such as {given.out / f'ratios.{given.format}'}")
    data = table.encode() if isinstance(table, str) else table
    write_atomic(given.out, lambda path: path.write_bytes(data))
    return {"path": str(given.out)}


def _table(source: Path) -> pd.DataFrame:
    if source.is_dir() and (source / "ratios.csv").is_file():
        return read_table(source / "ratios.csv")
    plan = PruningPlan.load(source / "plan.json" if source.is_dir() else source)
    channels, counts = np.array(list(plan.channels.values())), plan.counts()
    columns = {"group": list(plan.kept), "channels": channels, "kept": counts}
    return pd.DataFrame(columns | {"keep_ratio": np.round(counts / channels, 6)})
