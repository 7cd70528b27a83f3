"""Charts as a reader of SVG meets them."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import vl_convert

from rlprune.reports.records import Record
from rlprune.reports.vega import Chart

SVG = "{http://www.w3.org/2000/svg}"


def drawn(chart: Chart, width: int = 500) -> ElementTree.Element:
    """The chart with its data, drawn by Vega; the page's colours stay as they are."""
    spec = chart.drawing.to_dict() | {"datasets": chart.data, "width": width}
    return ElementTree.fromstring(vl_convert.vegalite_to_svg(json.dumps(spec)))


def marks(root: ElementTree.Element) -> dict[str, ElementTree.Element]:
    """What stands for something, by its words."""
    return {str(path.get("aria-label")): path for path in root.iter(f"{SVG}path") if path.get("aria-label")}


def texts(root: ElementTree.Element) -> list[str]:
    return [str(text.text) for text in root.iter(f"{SVG}text")]


def record(name: str = "run", **tables: pd.DataFrame) -> Record:
    files = {f"{table}.csv": frame for table, frame in tables.items()}
    return Record(Path(name), name, {}, {}, {}, "", files)
