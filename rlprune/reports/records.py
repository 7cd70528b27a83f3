"""What a run folder holds, for people to look at: read without torch, from finished and unfinished runs alike."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from rlprune.errors import UserError
from rlprune.plans.ratio_table import read_table
from rlprune.runs.folder import RUN_FORMAT

NEEDED = {
    "episodes.csv": ("evaluation", "stage", "loss", "accuracy", "macs_ratio", "params_ratio", "best_loss", "counts"),
    "ratios.csv": ("group", "tied", "channels", "kept", "keep_ratio"),
    "tunings.csv": ("evaluation", "stage", "loss", "accuracy", "macs_ratio", "params_ratio", "best_loss"),
    "front.csv": ("counts",),
    "finetune.csv": ("epoch", "loss", "accuracy"),
    "reactions.csv": ("observation", "change"),
    "agents.csv": ("kind", "batch", "reward", "macs_ratio"),
}
TEXTS = ("stage", "kind", "counts", "group", "layers", "observation", "criterion")
"""Columns of words; all others are numbers."""


@dataclass(frozen=True)
class Record:
    """A run as it was left.

    Attributes:
        folder: where it is.
        name: what it is called among the runs on its page.
        result: what its command returned, or empty while it is not finished.
        settings: as they were resolved.
        versions: of what it ran with.
        command: as it was typed.
        tables: file name -> the tables that are there, none of them empty.
    """

    folder: Path
    name: str
    result: dict[str, Any]
    settings: dict[str, Any]
    versions: dict[str, str]
    command: str
    tables: dict[str, pd.DataFrame]

    @property
    def plans(self) -> pd.DataFrame:
        """Every evaluation whose loss is a number, or an empty table."""
        return self._measured("episodes.csv")

    @property
    def tuned(self) -> pd.DataFrame:
        """Every fine-tuning of a plan, or an empty table; its stage is how many images it took."""
        return self._measured("tunings.csv")

    def _measured(self, file: str) -> pd.DataFrame:
        table = self.tables.get(file, pd.DataFrame(columns=list(NEEDED[file]), dtype=float))
        return table[table["loss"].abs() < float("inf")]

    def tuned_baselines(self) -> dict[str, float]:
        """What brief fine-tunings leave of the sensitivity rule and of a uniform cut, which come first."""
        names = ["sensitivity rule", *(["uniform"] if self.settings.get("reward", "loss") == "loss" else [])]
        return dict(zip(names, self.tuned["loss"].tolist(), strict=False))

    def best_losses(self) -> "pd.Series[float]":
        """The loss of the best plan so far after every evaluation from the first plan on.

        It rises where a corrected model of the latency no longer admits the plan.
        """
        return self.plans["best_loss"].dropna()

    def best_loss(self) -> float:
        """The last of them, NaN where no plan counts as the best."""
        losses = self.best_losses()
        return float(losses.iloc[-1]) if len(losses) else math.nan

    def baselines(self) -> dict[str, float]:
        """The losses of the sensitivity rule and of a uniform cut, which open every search under one hard budget."""
        single = ":" not in str(self.settings.get("budget")) and self.settings.get("reward", "loss") == "loss"
        searched = self.plans.loc[lambda plans: plans["stage"] == "search", "loss"].tolist()
        if not (single and searched):
            return {}
        rule = self.result.get("base_loss", searched[0])
        # A rule whose plan was met among the sensitivities is not logged again.
        others = searched[1:] if searched[0] == rule else searched
        return {"sensitivity rule": rule, **({"uniform": others[0]} if others else {})}


def read_records(folders: Sequence[Path]) -> list[Record]:
    """Read runs that shall stand side by side.

    Raises:
        UserError: a folder is no run or is there twice, has nothing to show, or holds files that cannot be read.
    """
    places = [folder.resolve() for folder in folders]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise UserError(f"{folders[number]} is given twice: name every run once")
    return [_read(folder, name) for folder, name in zip(folders, _names(places), strict=True)]


def _names(places: Sequence[Path]) -> list[str]:
    """The shortest ends of paths that differ from each other."""
    for parts in range(1, max(len(place.parts) for place in places) + 1):
        names = ["/".join(place.parts[-parts:]) for place in places]
        if len(set(names)) == len(names):
            break
    return names


def _read(folder: Path, name: str) -> Record:
    if not ((folder / "config.yaml").is_file() or (folder / "result.json").is_file()):
        raise UserError(f"{folder} is no run folder: expected one that `rlprune search` has made")
    settings = _mapping(folder / "config.yaml")
    if "methods" in settings:
        raise UserError(f"{folder} is a comparison of methods, whose figure is {folder / 'comparison.png'}, and no run")
    tables = {file: _table(folder / file, columns) for file, columns in NEEDED.items()}
    there = {file: table for file, table in tables.items() if not table.empty}
    if not there:
        raise UserError(f"{folder} has no evaluations yet: let its search run a while first")
    result = RUN_FORMAT.read(folder / "result.json") if (folder / "result.json").is_file() else {}
    versions = _mapping(folder / "environment.json")
    return Record(folder, name, result, settings, versions, _text(folder / "command.txt"), there)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None


def _mapping(path: Path) -> dict[str, Any]:
    """A JSON or YAML file of names and values."""
    try:
        data = yaml.safe_load(_text(path)) or {}
    except yaml.YAMLError:
        data = None
    if not isinstance(data, dict):
        raise UserError(f"{path} does not hold names and values: it is damaged")
    return data


def _table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A table with these columns at least; a line that is just being written is left out."""
    text = _text(path)
    whole = text[: text.rfind("\n") + 1]
    try:
        table = read_table(io.StringIO(whole)) if whole.strip() else pd.DataFrame()
        for column in table.columns.difference(list(TEXTS)):
            # A plan may diverge.
            table[column] = pd.to_numeric(table[column].replace("nan", float("nan")))
    except (ValueError, pd.errors.ParserError) as error:
        raise UserError(f"{path} is not a readable table: {error}") from None
    if absent := [] if table.empty else [column for column in columns if column not in table.columns]:
        raise UserError(f"{path} has no column '{absent[0]}': it is damaged, or older than this rlprune")
    return table
