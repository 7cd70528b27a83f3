"""Ratio tables as people hand them back: csv, json or parquet, maybe edited."""

import json
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd

from rlprune.errors import UserError

NAMES: dict[str, type] = {"group": str, "layers": str}
"""Columns of names: "1.10" is a layer, not the number 1.1."""


def read_table(path: Path | TextIO) -> pd.DataFrame:
    """A csv table whose names of groups and layers stay text."""
    return pd.read_csv(path, dtype=NAMES, keep_default_na=False, na_values=[""])  # type: ignore[arg-type]


def read_ratios(path: Path) -> dict[str, float]:
    """Read a ratio table with columns `group` and `keep_ratio`, by which alone it is followed.

    Raises:
        UserError: unreadable, columns missing, ratios outside (0, 1], or kept counts that no ratio could give.
    """
    table = _read_any(path)
    absent = [column for column in ("group", "keep_ratio") if column not in table.columns]
    if absent:
        raise UserError(f"{path} has no column '{absent[0]}': a ratio table has columns group and keep_ratio")
    if table["group"].duplicated().any():
        raise UserError(f"{path} names '{table['group'][table['group'].duplicated()].iloc[0]}' twice: give it once")
    ratios = pd.to_numeric(table["keep_ratio"], errors="coerce")
    _refuse(path, table, "keep_ratio", ~ratios.between(0, 1, inclusive="right"), "is not in (0, 1]")
    _check_counts(path, table)
    return dict(zip(table["group"].astype(str), ratios.astype(float), strict=True))


def stale_counts(path: Path) -> list[str]:
    """Groups of a readable ratio table whose kept count is not what their keep ratio gives.

    An edited keep ratio leaves the count beside it behind.
    """
    table = _read_any(path)
    if not {"channels", "kept"} <= set(table.columns):
        return []
    given, channels = (pd.to_numeric(table[name], errors="coerce") for name in ("kept", "channels"))
    wished = np.maximum(np.floor(pd.to_numeric(table["keep_ratio"]) * channels + 0.5), 1)
    stale = given.notna() & channels.notna() & (given != wished)
    return table["group"].astype(str)[stale].tolist()


def _read_any(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise UserError(f"{path} does not exist: expected a plan (json) or a ratio table (csv, json or parquet)")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path, engine="pyarrow")
        return pd.read_json(path, dtype=NAMES) if path.suffix == ".json" else read_table(path)  # type: ignore[arg-type]
    except ImportError:
        raise UserError("reading parquet needs pyarrow: pip install 'rlprune[parquet]'") from None
    except (ValueError, json.JSONDecodeError, UnicodeDecodeError, pd.errors.ParserError, OSError) as error:
        raise UserError(f"{path} is not a readable table: {error}") from None


def _check_counts(path: Path, table: pd.DataFrame) -> None:
    """A kept count may lag behind its keep ratio, but it must be one of the group's."""
    if "kept" not in table.columns:
        return
    given = pd.to_numeric(table["kept"], errors="coerce")
    most = pd.to_numeric(table["channels"], errors="coerce") if "channels" in table.columns else np.inf
    impossible = (given < 1) | (given > most) | (given != given.round()) | (given.isna() & table["kept"].notna())
    # An emptied cell is no mistake: the keep ratio says it all.
    _refuse(path, table, "kept", impossible & table["kept"].notna(), "is no number of its channels")


def _refuse(path: Path, table: pd.DataFrame, column: str, wrong: "pd.Series[bool]", why: str) -> None:
    """Raise UserError for the first row that is wrong, if any is."""
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        what, group = column.replace("_", " "), table["group"].iloc[row]
        raise UserError(f"{path}: {what} '{table[column].iloc[row]}' of '{group}' {why}")
