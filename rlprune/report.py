"""What remains of a run for people: the page of a run folder, and tables in the formats of other tools."""

import io
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from rlprune import exchange
from rlprune.errors import UserError, unknown
from rlprune.files import write_text
from rlprune.show import show
from rlprune.table import read_table
from rlprune.words import closing, effort, heading, percent

__all__ = ["export_table", "show", "write_run_report"]

TEMPLATE = "report.html.j2"
ELSEWHERE = {
    "html": exchange.page,
    "torch-pruning": exchange.torch_pruning,
    "nni": exchange.nni,
    "amc": exchange.amc,
}
FORMATS = ("csv", "json", "latex", "md", "parquet", *ELSEWHERE)


def export_table(table: pd.DataFrame, format: str) -> str | bytes:
    """A table as text for a file or the screen; parquet as bytes.

    Args:
        table: any table for the first six formats, a ratio table for the others; its index is left out.
        format: csv, json (a list of records), latex (booktabs), md, parquet, html, torch-pruning, nni or amc.

    Raises:
        UserError: no such format, pyarrow is missing for parquet, or the layers that another tool asks for.
    """
    if format == "csv":
        return table.to_csv(index=False, lineterminator="\n")
    if format == "json":
        return table.to_json(orient="records", indent=2, double_precision=15) + "\n"
    if format == "latex":
        return table.to_latex(index=False, escape=True, float_format="%.3f")
    if format == "md":
        # A group may be named "0.10": numbers are read from number columns only.
        names = [i for i, dtype in enumerate(table.dtypes) if not pd.api.types.is_numeric_dtype(dtype)]
        return str(table.to_markdown(index=False, disable_numparse=names)) + "\n"
    if format == "parquet":
        return _parquet(table)
    if format in ELSEWHERE:
        return ELSEWHERE[format](table)
    raise unknown("format", format, FORMATS)


def _parquet(table: pd.DataFrame) -> bytes:
    stream = io.BytesIO()
    try:
        table.to_parquet(stream, engine="pyarrow", index=False)
    except ImportError:
        raise UserError("writing parquet needs pyarrow: pip install 'rlprune[parquet]'") from None
    return stream.getvalue()


def write_run_report(folder: Path) -> None:
    """Write ``report.html`` of a run folder: one file that needs no other and no network.

    Args:
        folder: a run folder, finished or not; what it lacks is left out of the page.

    Raises:
        UserError: the folder cannot be written.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(percent=percent, whole=_whole)
    template = environment.from_string(files("rlprune").joinpath(TEMPLATE).read_text(encoding="utf-8"))
    ratios = _read_table(folder / "ratios.csv")
    figures = {name: Markup(svg) for name, svg in _figures(folder, ratios).items()}
    page = template.render(
        **_headline(folder),
        figures=figures,
        rows=[] if ratios is None else ratios.to_dict("records"),
        config=_read_text(folder / "config.yaml"),
        command=_read_text(folder / "command.txt"),
        versions=json.loads(_read_text(folder / "environment.json") or "{}"),
    )
    write_text(folder / "report.html", page)


def _whole(text: str) -> str:
    """A line may not end between a number and its unit."""
    return re.sub(r"(?<=[0-9]) (?=%|[kMGT]\b)", "\u00a0", text)


def _headline(folder: Path) -> dict[str, Any]:
    text = _read_text(folder / "result.json")
    if not text:
        return {"title": folder.resolve().name, "subtitle": "This run is not finished.", "facts": []}
    result = json.loads(text)
    return {"title": heading(result), "subtitle": effort(result), "facts": closing(result)}


def _figures(folder: Path, ratios: pd.DataFrame | None) -> dict[str, str]:
    from rlprune import plots

    episodes, history = _read_table(folder / "episodes.csv"), _read_table(folder / "finetune.csv")
    figures = {}
    if ratios is not None:
        figures["ratios"] = plots.keep_ratios(ratios)
    if episodes is not None and episodes["best_loss"].notna().any():
        figures["search"] = plots.search_progress(episodes)
    front = _read_table(folder / "front.csv")
    if episodes is not None and front is not None:
        figures["front"] = plots.front(episodes, front)
    if history is not None:
        figures["finetune"] = plots.finetune_progress(history)
    return figures


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def _read_table(path: Path) -> pd.DataFrame | None:
    """The table, or None where there is none yet. A group may be named "0.10" or "null": names stay texts."""
    if not _read_text(path):
        return None
    table = read_table(path)
    return None if table.empty else table
