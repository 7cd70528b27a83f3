"""Charts of bars: what stays of every group, and what the policy reacted to."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from rlprune.reports.records import Record
from rlprune.reports.vega import WIDE, Chart, Row, colour, run_colour
from rlprune.reports.words import observation_words
from rlprune.utils.text import TAKEN_OUT, count, percent

REACTIONS = 12
"""As many observations are drawn; the table has all of them."""


def channels(records: Sequence[Record]) -> Chart | None:
    """The channels of every group that stay, one bar a run."""
    return _kept(records, "channels", ("kept", "channels"), "Channels of every group that stay.")


def macs(records: Sequence[Record]) -> Chart | None:
    """The multiply-accumulates of every group that stay, one bar a run; older runs did not write them down."""
    caption = "Multiply-accumulates of the layers that make a group's channels, where all groups are cut."
    return _kept(records, "MACs", ("macs_after", "macs_before"), caption)


def reactions(records: Sequence[Record]) -> Chart | None:
    """The observations that the policies' actions depend on most."""
    tables = [(record, record.tables["reactions.csv"]) for record in records if "reactions.csv" in record.tables]
    if not tables:
        return None
    every = pd.concat([table for _, table in tables]).groupby("observation", sort=False)["change"].mean()
    most = every.sort_values(ascending=False, kind="stable").head(REACTIONS)
    rows = []
    for record, table in tables:
        changes = dict(zip(table["observation"], table["change"], strict=True))
        for name in most.index:
            rows.append(_row(record, observation_words(name), changes.get(name, 0.0), f"{changes.get(name, 0.0):.3f}"))
    caption = (
        "How much the policy's action, within −1 and 1, changes on average where an observation is taken from another "
        f"step of the walk: the {len(most)} strongest of {len(every)}. Observations that vary together share their "
        "effect."
    )
    summary = ", ".join(f"{observation_words(str(name))} {change:.3f}" for name, change in most.head(3).items())
    drawing = _draw(records, "reactions", rows, "mean change of the action", max(row["value"] for row in rows) or 1.0)
    return Chart("reactions", "What the policy reacted to", caption, f"The strongest: {summary}", *drawing)


def _kept(records: Sequence[Record], what: str, columns: tuple[str, str], caption: str) -> Chart | None:
    """`columns` of the ratio table say how much stays, and of how much."""
    rows, shares = [], {}
    for record in records:
        table = record.tables.get("ratios.csv")
        if table is None or not set(columns) <= set(table.columns):
            continue
        kept, whole = (table[column] for column in columns)
        shares[record.name] = kept.sum() / whole.sum()
        for group, some, every, out in zip(table["group"], kept, whole, table["kept"] == 0, strict=True):
            told = TAKEN_OUT if out else f"{count(some)} / {count(every)}"
            rows.append(_row(record, group, 100 * some / every, told))
    if not rows:
        return None
    line = shares[records[0].name] if len(records) == 1 else None
    caption += "" if line is None else f" The dashed line is what stays of all of them: {percent(line)}."
    summary = ", ".join(f"{name} keeps {percent(share)} of the {what}" for name, share in shares.items())
    title = f"{what[0].upper()}{what[1:]} kept of every group"
    drawing = _draw(records, f"kept-{what.lower()}", rows, f"{what} kept, %", 100, line)
    return Chart(f"kept-{what.lower()}", title, caption, summary, *drawing)


def _row(record: Record, label: object, value: float, number: str) -> Row:
    return {"run": record.name, "label": str(label), "value": value, "number": number, "told": f"{label}: {number}"}


def _draw(
    records: Sequence[Record], name: str, rows: list[Row], title: str, top: float, line: float | None = None
) -> tuple[alt.TopLevelMixin, dict[str, list[Row]]]:
    """Bars under their labels, which may be long: beside them they would take the room of the bars on a phone."""
    several = len(records) > 1
    names = list(dict.fromkeys(row["label"] for row in rows))
    thick, above = 6 * len(records) if several else 8, 26 if len(names) < 30 else 20
    gap = above / (above + thick)
    band: dict[str, Any] = {"sort": None, "axis": None, "scale": alt.Scale(paddingInner=gap, paddingOuter=gap)}
    y, edge = alt.Y("label:N", **band), alt.Y("label:N", bandPosition=0, **band)
    bars, labels = alt.Chart(alt.NamedData(name)), alt.Chart(alt.NamedData(f"{name}-labels"))
    written: dict[str, Any] = {"baseline": "bottom", "dy": -3, "fontSize": 12, "aria": False}
    room = 0 if several else 7 * max(len(row["number"]) for row in rows) + 8
    layers = [
        labels.mark_bar(color=colour("soft"), aria=False).encode(y=y, x=alt.datum(0), x2=alt.datum(top)),
        bars.mark_bar().encode(
            x=alt.X("value:Q", title=title, scale=alt.Scale(domain=[0, top], nice=False)),
            y=y,
            color=run_colour([record.name for record in records], offset=8),
            description="told:N",
            **({"yOffset": alt.YOffset("run:N", sort=None)} if several else {}),
        ),
        labels.mark_text(align="left", color=colour("ink"), limit=alt.ExprRef(f"width - {room}"), **written).encode(
            y=edge, x=alt.value(0), text="label:N"
        ),
    ]
    if not several:
        numbers = bars.mark_text(align="right", color=colour("muted"), **written)
        layers.append(numbers.encode(y=edge, x=alt.value("width"), text="number:N"))
    if line is not None:
        rule = labels.mark_rule(color=colour("second"), strokeDash=[4, 3], strokeWidth=1.5, aria=False)
        layers.append(rule.encode(x=alt.datum(100 * line)))
    drawing = alt.layer(*layers).properties(height=(above + thick) * (len(names) + gap), **WIDE)
    return drawing, {name: rows, f"{name}-labels": [{"label": label} for label in names]}
