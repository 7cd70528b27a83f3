"""The ratio table: written for people, read back edited."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd

from rlprune.cost.exact import Cost, group_costs
from rlprune.errors import UserError
from rlprune.graph.structure import Graph
from rlprune.plans.plan import PruningPlan, check_same_groups


def rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table's rows as JSON has them: what is not known is None."""
    return [
        {str(key): None if value != value else value for key, value in row.items()} for row in table.to_dict("records")
    ]


def ratio_table(graph: Graph, cost: Cost, plan: PruningPlan) -> pd.DataFrame:
    """The table people read: one row a group.

    Columns: group, tied (conv and linear layers besides the first), channels, kept, keep_ratio, the criterion that says
    what is kept (where it is not one for all groups), the share of the
    criterion's scores that is kept and the rise of the search loss that this cut alone foretells (both empty where
    they are not known), the share of the dense network's MACs and parameters that goes when this group alone is cut to
    its kept count, the MACs and parameters of the weights that make its channels before and after all groups are cut,
    and all its conv and linear layers with blanks in between.
    """
    counts, facts = plan.counts(), plan.table()
    saved = cost.saved_alone(counts)
    before, after = (np.rint(group_costs(graph, some)).astype(np.int64) for some in (graph.sizes, counts))
    layers = [graph.layers_of(group) for group in graph.groups]
    return pd.DataFrame(
        {
            "group": [group.name for group in graph.groups],
            "tied": [len(mine) - 1 for mine in layers],
            "channels": graph.sizes,
            "kept": counts,
            **{
                name: facts[name]
                for name in ("keep_ratio", "criterion", "importance_kept", "sensitivity")
                if name in facts
            },
            "macs_saved_alone": np.round(saved[:, 0], 6),
            "params_saved_alone": np.round(saved[:, 1], 6),
            "macs_before": before[:, 0],
            "macs_after": after[:, 0],
            "params_before": before[:, 1],
            "params_after": after[:, 1],
            "layers": [" ".join(mine) for mine in layers],
        }
    )


LARGEST = 10**9
MOST_ROWS = 10**6
NAMES: dict[str, type] = {"group": str, "layers": str}
"""Columns of names: "1.10" is a layer, not the number 1.1."""


def read_table(path: Path | TextIO) -> pd.DataFrame:
    """A csv table whose names of groups and layers stay text."""
    return pd.read_csv(path, dtype=NAMES, keep_default_na=False, na_values=[""])  # type: ignore[arg-type]


def read_ratios(path: Path) -> pd.DataFrame:
    """Read a ratio table with columns `group` and `keep_ratio`, by which alone it is followed.

    Raises:
        UserError: unreadable, columns missing, a group with two ratios, ratios outside [0, 1], or kept counts that no
            ratio could give.
    """
    table = read_any(path)
    absent = [column for column in ("group", "keep_ratio") if column not in table.columns]
    if absent:
        raise UserError(f"{path} has no column '{absent[0]}': a ratio table has columns group and keep_ratio")
    ratios = pd.to_numeric(table["keep_ratio"], errors="coerce")
    _refuse(path, table, "keep_ratio", ~ratios.between(0, 1), "is not in (0, 1], or 0 for a block that is taken out")
    table = table.assign(group=table["group"].astype(str), keep_ratio=ratios.astype(float))
    for name, rows in table.groupby("group", sort=False)["keep_ratio"]:
        if rows.nunique() > 1:
            texts = " and ".join(f"{ratio:g}" for ratio in rows)
            raise UserError(f"{path} gives '{name}' the ratios {texts}: its layers are tied and keep the same channels")
        if len(rows) > 1:
            raise UserError(f"{path} names '{name}' twice: give it once")
    _check_counts(path, table)
    return table


def ratios_for(graph: Graph, table: pd.DataFrame, path: Path) -> np.ndarray:
    """(groups,) the keep ratios of a table for a network; 0 in all inner groups of a block takes it out.

    Args:
        graph: structure of the network.
        table: from `read_ratios`.
        path: what messages call the table.

    Raises:
        UserError: other groups, other numbers of channels, layers that are torn from those they are tied to, or a ratio
            of 0 where no block goes.
    """
    owners = {layer: group.name for group in reversed(graph.groups) for layer in graph.layers_of(group)}
    sizes = {group.name: group.channels for group in graph.groups}
    for name in table["group"]:
        if name not in sizes and name in owners:
            raise UserError(
                f"{path} has a row for '{name}', which is tied to '{owners[name]}' and has no ratio of its own"
            )
    told = pd.to_numeric(table["channels"], errors="coerce") if "channels" in table.columns else np.nan
    told = pd.Series(told, index=table.index)
    if "channels" in table.columns:
        _refuse(path, table, "channels", told.abs() > LARGEST, "is no number of channels")
    told = told.fillna(table["group"].map(sizes)).fillna(0)
    check_same_groups(dict(zip(table["group"], told.astype(int), strict=True)), graph, str(path))
    if "layers" in table.columns:
        listed = dict(zip(table["group"], table["layers"].fillna("").astype(str).str.split(), strict=True))
        for group in graph.groups:
            _check_layers(path, group.name, listed[group.name], graph.layers_of(group), owners)
    ratios = dict(zip(table["group"], table["keep_ratio"], strict=True))
    found = np.array([ratios[group.name] for group in graph.groups])
    try:
        graph.taken_out(np.ceil(found).astype(np.int64))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return found


def _check_layers(
    path: Path, group: str, listed: list[str], expected: tuple[str, ...], owners: Mapping[str, str]
) -> None:
    # An emptied cell says nothing.
    for layer in listed:
        if layer not in expected:
            where = f"is tied to '{owners[layer]}'" if layer in owners else "makes no channels that can be cut"
            raise UserError(f"{path} lists '{layer}' under '{group}', but it {where}")
    for layer in expected if listed else ():
        if layer not in listed:
            raise UserError(
                f"{path} leaves '{layer}' out of '{group}', but it is tied to it and keeps the same channels"
            )


def stale_counts(table: pd.DataFrame) -> list[str]:
    """Groups of a ratio table whose kept count is not what their keep ratio gives.

    An edited keep ratio leaves the count beside it behind.
    """
    if not {"channels", "kept"} <= set(table.columns):
        return []
    given, channels = (pd.to_numeric(table[name], errors="coerce") for name in ("kept", "channels"))
    wished = np.maximum(np.floor(table["keep_ratio"] * channels + 0.5), table["keep_ratio"] > 0)
    stale = given.notna() & channels.notna() & (given != wished)
    return table["group"][stale].tolist()


def read_any(path: Path) -> pd.DataFrame:
    """Read a table by the ending of its name; UserError if that cannot be done."""
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {problem}: expected a table of ratios (csv, json or parquet)")
    try:
        if path.suffix == ".parquet":
            return _read_parquet(path)
        return pd.read_json(path, dtype=NAMES) if path.suffix == ".json" else read_table(path)  # type: ignore[arg-type]
    except ImportError:
        raise UserError("reading parquet needs pyarrow: pip install 'rlprune[parquet]'") from None
    except (ValueError, json.JSONDecodeError, UnicodeDecodeError, pd.errors.ParserError, OSError) as error:
        raise UserError(f"{path} is not a readable table: {error}") from None


def _read_parquet(path: Path) -> pd.DataFrame:
    """A table whose size is looked at first: a few bytes can stand for any number of equal rows."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        rows = file.metadata.num_rows
    if rows > MOST_ROWS:
        raise ValueError(f"it has {rows:,} rows, and no network has more than {MOST_ROWS:,} groups")
    return pd.read_parquet(path, engine="pyarrow")


def _check_counts(path: Path, table: pd.DataFrame) -> None:
    """A kept count may lag behind its keep ratio, but it must be one of the group's."""
    if "kept" not in table.columns:
        return
    given = pd.to_numeric(table["kept"], errors="coerce")
    most = pd.to_numeric(table["channels"], errors="coerce") if "channels" in table.columns else np.inf
    impossible = (given < 0) | (given > most) | (given != given.round()) | (given.isna() & table["kept"].notna())
    # An emptied cell is no mistake: the keep ratio says it all.
    _refuse(path, table, "kept", impossible & table["kept"].notna(), "is no number of its channels")


def _refuse(path: Path, table: pd.DataFrame, column: str, wrong: "pd.Series[bool]", why: str) -> None:
    """Raise UserError for the first row that is wrong, if any is."""
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        what, group = column.replace("_", " "), table["group"].iloc[row]
        raise UserError(f"{path}: {what} '{table[column].iloc[row]}' of '{group}' {why}")
