"""The tables of a page: all that its charts show, and what a run was made with, a column a run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rlprune.reports.records import Record
from rlprune.reports.words import observation_words
from rlprune.utils.text import TAKEN_OUT, count, duration, percent

Rows = list[list[str]]
NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """Texts in rows; the first of every row names it.

    Attributes:
        name: of its place on the page.
        title: what it holds.
        note: how to read it, or empty.
        head: of every column.
        rows: of texts.
        folded: it opens when it is asked for.
        words: its cells are words and not numbers.
    """

    name: str
    title: str
    note: str
    head: list[str]
    rows: Rows
    folded: bool = False
    words: bool = False


def summary(records: Sequence[Record]) -> Table | None:
    """Before and after for one run; a column a run for several."""
    return _compared(records) if len(records) > 1 else _before_and_after(records[0])


def tables_of(records: Sequence[Record]) -> list[Table]:
    """Every other table that the runs have something for."""
    made = [make(records) for make in (_budgets, _ratios, _evaluations, _tunings, _reactions, _epochs)]
    settings = _side_by_side("settings", "Configuration", records, [record.settings for record in records])
    versions = _side_by_side("versions", "Environment", records, [record.versions for record in records])
    return [table for table in (*made, settings, versions) if table is not None and table.rows]


def _before_and_after(record: Record) -> Table | None:
    result = record.result
    if "macs_ratio" not in result:
        return None
    rows = []
    dense = result.get("dense_accuracy")
    for when, words in (("oneshot", "Test accuracy, one-shot"), ("finetuned", "Test accuracy, fine-tuned")):
        after = result.get(f"{when}_accuracy")
        if after is not None:
            change = NOTHING if dense is None else f"{100 * (after - dense):+.2f} points".replace("-", "−")
            rows.append([words, _percent(dense), _percent(after), change])
    for key, words in (("macs", "MACs of an image"), ("params", "Parameters")):
        before, after = result[f"dense_{key}"], result[f"pruned_{key}"]
        rows.append([words, count(before), count(after), f"{percent(after / before)} kept"])
    head = ["", "Dense", "Pruned", "Change"]
    return Table("summary", "Before and after", "", head, rows)


def _compared(records: Sequence[Record]) -> Table:
    """What was asked for and what came out, a column a run."""
    facts: dict[str, Callable[[Record], Any]] = {
        "Network": lambda record: record.result.get("model") or record.settings.get("model"),
        "Images": lambda record: record.result.get("data") or record.settings.get("data"),
        "Budget": lambda record: record.result.get("budget") or record.settings.get("budget"),
        "Agent": lambda record: record.settings.get("agent"),
        "Seed": lambda record: record.settings.get("seed"),
        "Evaluations": lambda record: len(record.tables["episodes.csv"]) if "episodes.csv" in record.tables else None,
        "Time": lambda record: duration(record.result["seconds"]) if "seconds" in record.result else "not finished",
        "Search loss, uniform": lambda record: _loss(record.baselines().get("uniform")),
        "Search loss, sensitivity rule": lambda record: _loss(record.baselines().get("sensitivity rule")),
        "Search loss, best": lambda record: _loss(record.best_loss()),
        "Test accuracy, dense": lambda record: _percent(record.result.get("dense_accuracy")),
        "Test accuracy, one-shot": lambda record: _percent(record.result.get("oneshot_accuracy")),
        "Test accuracy, fine-tuned": lambda record: _percent(record.result.get("finetuned_accuracy")),
        "MACs of an image": lambda record: _size(record, "macs"),
        "Parameters": lambda record: _size(record, "params"),
    }
    rows = [[label, *(_text(fact(record)) for record in records)] for label, fact in facts.items()]
    return Table("summary", "Side by side", "", ["", *(record.name for record in records)], _told(rows))


def _size(record: Record, key: str) -> str:
    result = record.result
    if f"{key}_ratio" not in result:
        return NOTHING
    return f"{count(result[f'dense_{key}'])} → {count(result[f'pruned_{key}'])} ({percent(result[f'{key}_ratio'])})"


def _budgets(records: Sequence[Record]) -> Table | None:
    """The best plan of every budget of a range."""
    rows = [
        [
            *([record.name] if len(records) > 1 else []),
            str(plan["budget"]),
            _loss(plan["base_loss"]),
            _loss(plan["search_loss"]),
            *(percent(plan[key]) for key in ("search_accuracy", "macs_ratio", "params_ratio")),
        ]
        for record in records
        for plan in record.result.get("plans", [])
    ]
    head = ["Budget", "Loss of the sensitivity rule", "Loss", "Accuracy", "MACs kept", "Parameters kept"]
    note = "Loss and accuracy on the search images, before fine-tuning."
    return Table("budgets", "Best plan of every budget", note, _headed(records, head), rows)


def _ratios(records: Sequence[Record]) -> Table | None:
    if len(records) == 1:
        return _own_ratios(records[0])
    tables = [record.tables.get("ratios.csv", pd.DataFrame()).to_dict("records") for record in records]
    cells = [
        {row["group"]: f"{row['kept']} / {row['channels']}" if row["kept"] else TAKEN_OUT for row in table}
        for table in tables
    ]
    groups = dict.fromkeys(group for mine in cells for group in mine)
    rows = [[str(group), *(mine.get(group, NOTHING) for mine in cells)] for group in groups]
    head = ["Group", *(record.name for record in records)]
    return Table("ratios", "Channels kept", "A group is named after its first layer.", head, rows)


def _own_ratios(record: Record) -> Table | None:
    table = record.tables.get("ratios.csv")
    if table is None:
        return None
    columns: dict[str, tuple[str, Callable[[Any], str]]] = {
        "tied": ("Tied layers", lambda cell: str(cell) if cell else NOTHING),
        "channels": ("Channels", str),
        "kept": ("Kept", lambda kept: str(kept) if kept else TAKEN_OUT),
        "keep_ratio": ("Keep ratio", percent),
        "criterion": ("Criterion", str),
        "macs_before": ("MACs", count),
        "macs_after": ("MACs kept", count),
        "params_before": ("Params", count),
        "params_after": ("Params kept", count),
        "macs_saved_alone": ("MACs saved alone", percent),
        "params_saved_alone": ("Params saved alone", percent),
    }
    there = {name: how for name, how in columns.items() if name in table.columns}
    rows = [[row["group"], *(say(row[name]) for name, (_, say) in there.items())] for row in table.to_dict("records")]
    note = (
        "A group is named after its first layer; tied layers lose the same channels. MACs and parameters are those of "
        "the layers that make a group's channels. Saved alone: what goes of the dense network when only this group is "
        "cut."
    )
    return Table("ratios", "Ratios", note, ["Group", *(title for title, _ in there.values())], rows)


def _evaluations(records: Sequence[Record]) -> Table:
    note = "Loss and accuracy on the search images, before fine-tuning."
    head, rows = _measured(records, "episodes.csv", "Evaluation")
    return Table("evaluations", "Every evaluation", note, head, rows, folded=True)


def _tunings(records: Sequence[Record]) -> Table:
    note = "Loss and accuracy on images that no tuning has seen."
    head, rows = _measured(records, "tunings.csv", "Tuning")
    return Table("all-tunings", "Every fine-tuning of a plan", note, head, rows, folded=True)


def _measured(records: Sequence[Record], file: str, what: str) -> tuple[list[str], Rows]:
    """Head and rows of a table with a row a measured plan."""
    rows = []
    for record in records:
        for row in record.tables.get(file, pd.DataFrame()).to_dict("records"):
            shares = (percent(row[name], 2) for name in ("accuracy", "macs_ratio", "params_ratio"))
            cells = [str(row["evaluation"]), str(row["stage"]), _loss(row["loss"]), _loss(row["best_loss"]), *shares]
            rows.append([record.name, *cells] if len(records) > 1 else cells)
    head = [what, "Stage", "Loss", "Best so far", "Accuracy", "MACs kept", "Parameters kept"]
    return _headed(records, head), rows


def _reactions(records: Sequence[Record]) -> Table:
    tables = [record.tables.get("reactions.csv", pd.DataFrame()).to_dict("records") for record in records]
    cells = [{row["observation"]: row["change"] for row in table} for table in tables]
    names = dict.fromkeys(name for mine in cells for name in mine)
    rows = [
        [observation_words(name), *(f"{mine[name]:.4f}" if name in mine else NOTHING for mine in cells)]
        for name in names
    ]
    head = ["Observation", *(["Mean change of the action"] if len(records) == 1 else [r.name for r in records])]
    return Table("all-reactions", "Every reaction of the policy", "", head, rows, folded=True)


def _epochs(records: Sequence[Record]) -> Table:
    rows = []
    for record in records:
        for row in record.tables.get("finetune.csv", pd.DataFrame()).to_dict("records"):
            cells = [str(row["epoch"]), _loss(row["loss"]), percent(row["accuracy"], 2)]
            rows.append([record.name, *cells] if len(records) > 1 else cells)
    head = _headed(records, ["Epoch", "Training loss", "Training accuracy"])
    return Table("epochs", "Every epoch of the fine-tuning", "", head, rows, folded=True)


def _headed(records: Sequence[Record], head: list[str]) -> list[str]:
    return ["Run", *head] if len(records) > 1 else head


def _side_by_side(name: str, title: str, records: Sequence[Record], facts: Sequence[dict[str, Any]]) -> Table:
    """A row a name, a column a run; where several runs differ comes first."""
    names = dict.fromkeys(key for mine in facts for key in mine if key != "version")
    rows = _told([[key.replace("_", " "), *(_text(mine.get(key)) for mine in facts)] for key in names])
    rows.sort(key=lambda row: len(set(row[1:])) == 1)
    head = [] if len(records) == 1 else ["", *(record.name for record in records)]
    note = "Rows in which the runs differ come first." if len(records) > 1 else ""
    return Table(name, title, note, head, rows, words=True)


def _told(rows: Rows) -> Rows:
    """The rows in which a run has something to tell."""
    return [row for row in rows if any(cell != NOTHING for cell in row[1:])]


def _loss(value: float | None) -> str:
    return NOTHING if value is None or pd.isna(value) else f"{value:.4g}"


def _percent(share: float | None) -> str:
    return NOTHING if share is None else percent(share, 2)


def _text(value: object) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
