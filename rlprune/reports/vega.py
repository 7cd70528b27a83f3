"""Charts by Vega-Lite (Satyanarayan et al., 2017): the script that draws them in a page, and pictures of them.

A chart names its colours and its data; a page gives it both when it is opened, a picture when it is saved.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from rlprune.errors import UserError
from rlprune.utils.files import cache_folder, write_atomic, write_text

Row = dict[str, Any]

# Runs have colours that people with colour blindness tell apart (after Okabe and Ito, 2008), darker and lighter until
# all of them stand out from the page.
LIGHT = {
    "paper": "#fbfaf8", "card": "#ffffff", "ink": "#1d2126", "muted": "#5f6772", "line": "#dddad4", "soft": "#ecebe6",
    "accent": "#0b6e75", "second": "#b4541a", "run-1": "#0072b2", "run-2": "#c65300", "run-3": "#00815d",
    "run-4": "#b0548a", "run-5": "#8c6d31", "run-6": "#332288", "run-7": "#747474", "run-8": "#a87400",
}  # fmt: skip
DARK = {
    "paper": "#14171a", "card": "#1b1f23", "ink": "#e7e5e1", "muted": "#9aa3ad", "line": "#353b41", "soft": "#292e33",
    "accent": "#4fc3c4", "second": "#f0965a", "run-1": "#56b4e9", "run-2": "#f0965a", "run-3": "#35c39a",
    "run-4": "#e39cc4", "run-5": "#c9a860", "run-6": "#a99bf0", "run-7": "#b5b5b5", "run-8": "#f2ce4b",
}  # fmt: skip
MOST_RUNS = 8
"""As many as there are colours."""

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
PICTURE_WIDTH = 560
"""Pixels; a page makes its charts as wide as there is room."""


def colour(name: str) -> str:
    """A colour of the page, whether it is light or dark."""
    return f"var(--{name})"


CONFIG = {
    "font": FONT,
    "background": "transparent",
    "view": {"stroke": None},
    "axis": {
        "labelColor": colour("muted"), "titleColor": colour("muted"), "gridColor": colour("line"),
        "domainColor": colour("line"), "tickColor": colour("line"), "labelFontSize": 12, "titleFontSize": 12,
        "titleFontWeight": "normal", "labelPadding": 6, "titlePadding": 8, "ticks": False, "domain": False,
    },
    "axisX": {"grid": False, "labelFlush": True, "tickCount": {"expr": "max(width / 90, 2)"}, "domain": True},
    "axisY": {"titleAngle": 0, "titleAlign": "left", "titleAnchor": "start", "titleY": -12, "titleX": 0,
              "titleBaseline": "bottom", "tickCount": 5},
    "legend": {
        "orient": "top", "direction": "horizontal", "title": None, "labelColor": colour("ink"), "labelFontSize": 12,
        "labelLimit": 300, "symbolStrokeWidth": 2, "symbolOpacity": 1, "symbolSize": 70, "offset": 30,
        "symbolBaseFillColor": colour("ink"), "symbolBaseStrokeColor": colour("ink"), "columnPadding": 16,
        # The width itself is only known when the rows of the legend have been counted.
        "columns": {"expr": "max(floor(((containerSize()[0] || width) - 40) / 120), 1)"},
    },
}  # fmt: skip

WIDE: dict[str, Any] = {"width": "container", "autosize": alt.AutoSizeParams(type="fit-x", contains="padding")}
"""Of every chart, which a page makes as wide as there is room."""


@dataclass(frozen=True)
class Chart:
    """A chart and what it is drawn from.

    Attributes:
        name: of its place on the page and of its files.
        title: what it shows.
        caption: how to read it.
        summary: what it says, for those who do not see it.
        drawing: names its data.
        data: the rows by these names; several charts may share them.
    """

    name: str
    title: str
    caption: str
    summary: str
    drawing: alt.TopLevelMixin
    data: dict[str, list[Row]]


def run_colour(names: Sequence[str], offset: int = 30) -> Any:
    """One colour a run; a run alone needs no legend.

    Args:
        names: of the runs on the page.
        offset: pixels between the legend and the chart; above a vertical axis stands its title.
    """
    if len(names) == 1:
        return alt.value(colour("accent"))
    colours = [colour(f"run-{number}") for number, _ in enumerate(names, start=1)]
    legend = alt.Legend(columns=1, offset=offset)
    return alt.Color("run:N", scale=alt.Scale(domain=names, range=colours), legend=legend)


def runtime() -> str:
    """The script that draws charts in a page, 0.9 MB: Vega, Vega-Lite and Vega-Embed.

    It takes more than a second to make and is the same for all pages: it is kept in the cache, if that can be written.
    """
    path = cache_folder() / f"vega-{version('vl-convert-python')}.js"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    with suppress(UserError):
        write_text(path, script)
    return script


def save_picture(drawing: alt.TopLevelMixin, data: Mapping[str, Sequence[Row]], path: Path) -> None:
    """Write a chart as PNG and SVG, in the colours of a light page.

    Args:
        drawing: names its data.
        data: the rows by these names.
        path: of both files, without their endings.
    """
    config = CONFIG | {"background": LIGHT["card"], "font": "Arial, sans-serif"}
    text = json.dumps(drawing.to_dict() | {"config": config, "datasets": data, "width": PICTURE_WIDTH, "padding": 12})
    for name, value in LIGHT.items():
        text = text.replace(f'"{colour(name)}"', f'"{value}"')
    svg, png = vl_convert.vegalite_to_svg(text), vl_convert.vegalite_to_png(text, scale=3)
    write_text(path.with_name(f"{path.name}.svg"), svg)
    write_atomic(path.with_name(f"{path.name}.png"), lambda temporary: temporary.write_bytes(png))
