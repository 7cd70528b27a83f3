"""The page of a run, or of several side by side: one file that needs no other and no network."""

import json
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from rlprune.reports.curve_charts import agents, finetune, front, search, tunings
from rlprune.reports.layer_charts import channels, macs, reactions
from rlprune.reports.records import Record, read_records
from rlprune.reports.tables import summary, tables_of
from rlprune.reports.vega import CONFIG, DARK, LIGHT, Chart, Row, runtime, save_picture
from rlprune.reports.words import closing, effort, heading
from rlprune.runs.folder import parts_of
from rlprune.utils.files import write_text
from rlprune.utils.lock import locked

CHARTS = (channels, macs, search, tunings, front, reactions, agents, finetune)


def write_page(records: Sequence[Record], path: Path, figures: Path | None = None) -> None:
    """Write the page of some runs.

    Args:
        records: the runs; what they lack is left out of the page.
        path: of the page.
        figures: folder in which every chart is kept as PNG and SVG, too, or None.

    Raises:
        UserError: the page or the folder cannot be written.
    """
    charts = charts_of(records)
    write_text(path, render(records, charts))
    if figures:
        for chart in charts:
            save_picture(chart.drawing, chart.data, figures / chart.name)


def write_run_page(folder: Path) -> None:
    """Write `report.html` of a run folder, finished or not; of several networks side by side."""
    write_page(read_records(parts_of(folder)), folder / "report.html")


def complete_run_page(folder: Path) -> None:
    """Write `report.html` of a finished run where a kill came before it."""
    if not (folder / "report.html").is_file():
        with locked(folder):
            write_run_page(folder)


def charts_of(records: Sequence[Record]) -> list[Chart]:
    """Every chart that the runs have data for."""
    return [chart for draw in CHARTS if (chart := draw(records)) is not None]


def render(records: Sequence[Record], charts: Sequence[Chart]) -> str:
    """The page of some runs and their charts as HTML."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["whole"] = _whole
    # Tests validate the charts; for a page it would take half of its time.
    drawings = {chart.name: chart.drawing.to_dict(validate=False) for chart in charts}
    data: dict[str, list[Row]] = {name: rows for chart in charts for name, rows in chart.data.items()}
    content = {"charts": drawings, "data": data, "config": CONFIG}
    return environment.from_string(_part("html.j2")).render(
        **_headline(records),
        records=records,
        charts=charts,
        summary=summary(records),
        tables=tables_of(records),
        palettes={"light": LIGHT, "dark": DARK},
        style=Markup(_part("css")),
        content=Markup(_inside_script(json.dumps(content, separators=(",", ":"), allow_nan=False))),
        scripts=[Markup(_inside_script(script)) for script in ((runtime(), _part("js")) if charts else ())],
    )


def _part(ending: str) -> str:
    return files("rlprune.reports").joinpath(f"page.{ending}").read_text(encoding="utf-8")


def _inside_script(text: str) -> str:
    """What would end a script, or begin a comment in it, stands in its texts alone, where this says the same."""
    return re.sub("<(?=/?script|!--)", r"\\u003c", text, flags=re.IGNORECASE)


def _whole(text: str) -> str:
    """A line may not end between a number and its unit or its bound."""
    return re.sub(r"(?<=[0-9]) (?=%|[kMGT]\b)|(?<=[≤≥]) (?=[0-9])", "\u00a0", text)


def _headline(records: Sequence[Record]) -> dict[str, Any]:
    if len(records) > 1:
        finished = sum(bool(record.result) for record in records)
        told = "" if finished == len(records) else f"{len(records) - finished} of them are not finished."
        return {"title": f"{len(records)} runs side by side", "subtitle": told, "facts": []}
    record = records[0]
    if not record.result:
        return {"title": record.name, "subtitle": "This run is not finished.", "facts": []}
    return {"title": heading(record.result), "subtitle": effort(record.result), "facts": closing(record.result)}
