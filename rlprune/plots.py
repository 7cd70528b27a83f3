"""The figures of a run as SVG that takes its colours and its font from the page around it."""

import io
import re
from collections.abc import Callable
from html import escape
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

WIDTH = 5.0
"""Inches of 72 units: a column of the page on a desk, the whole page on a phone, and legible on both."""

# Colours nobody would choose stand for the page's own until the SVG is written; so one figure serves light and dark.
INK, MUTED, LINE, SOFT, ACCENT, SECOND = (f"#a0b0c{digit}" for digit in range(1, 7))
PAGE_COLOURS = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    SOFT: "var(--soft)",
    ACCENT: "var(--accent)",
    SECOND: "var(--second)",
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "ytick.major.size": 0,
}


def keep_ratios(table: pd.DataFrame) -> str:
    """One bar a group, and a line where a uniform cut that keeps as many channels in all would end every bar.

    Args:
        table: a ratio table (columns group, channels, kept, keep_ratio).

    Returns:
        an ``<svg>`` element.
    """

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0.005, 16 / height, 0.99, 1 - 30 / height))
        rows, thick = range(len(table)), 5.5 / pitch
        axes.barh(rows, [1.0] * len(table), height=thick, color=SOFT)
        axes.barh(rows, table["keep_ratio"], height=thick, color=ACCENT)
        for row, (name, channels, kept) in enumerate(
            zip(table["group"], table["channels"], table["kept"], strict=True)
        ):
            above: dict[str, Any] = {"xytext": (0, 3), "textcoords": "offset points", "fontsize": 8}
            axes.annotate(str(name), (0, row - thick / 2), **above)
            axes.annotate(f"{kept} / {channels}", (1, row - thick / 2), ha="right", color=MUTED, **above)
        axes.axvline(uniform, color=SECOND, linewidth=1, linestyle=(0, (3, 2)))
        side = "right" if uniform > 0.5 else "left"
        label = f" uniform {100 * uniform:.0f} % "
        axes.annotate(label, (uniform, 1), xycoords=("data", "axes fraction"), va="bottom", ha=side, color=SECOND)
        axes.set(xlim=(0, 1), ylim=(len(table) - 0.65, -0.65), yticks=(), xticks=(0, 0.25, 0.5, 0.75, 1))
        axes.set_xticklabels(["0", "25 %", "50 %", "75 %", "100 %"])
        axes.get_xticklabels()[0].set_horizontalalignment("left")
        axes.get_xticklabels()[-1].set_horizontalalignment("right")
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)

    uniform = float(table["kept"].sum() / table["channels"].sum())
    # A short network fills the column beside it; a deep one grows the page.
    pitch = min(max(500 / len(table), 21), 38)
    height = 30 + pitch * len(table)
    title = f"Keep ratio of every group of channels; over all groups {100 * uniform:.0f} % of the channels stay."
    return _svg("ratios", title, height, draw)


def search_progress(episodes: pd.DataFrame) -> str:
    """Every plan's loss as a dot, the best so far as a line; the plans of the sensitivity analysis are left out.

    Args:
        episodes: columns evaluation, stage, loss (nats), best_loss.

    Returns:
        an ``<svg>`` element.
    """

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0.1, 0.15, 0.885, 0.77))
        for stage, colour in (("start", SECOND), ("search", MUTED)):
            some = plans[plans["stage"] == stage]
            if len(some):
                axes.scatter(some["evaluation"], some["loss"], s=7, color=colour, alpha=0.6, linewidths=0, label=stage)
        axes.step(
            plans["evaluation"], plans["best_loss"], where="post", color=ACCENT, linewidth=1.8, label="best so far"
        )
        probed = episodes.loc[episodes["stage"] == "sensitivity", "evaluation"]
        if len(probed):
            axes.axvspan(probed.min() - 0.5, probed.max() + 0.5, color=SOFT, linewidth=0)
            middle = (probed.min() + probed.max()) / 2
            axes.text(middle, 0.5, "sensitivity", transform=axes.get_xaxis_transform(), ha="center", color=MUTED)
        axes.set_xlabel("evaluations")
        axes.set_title("loss", loc="left", color=MUTED, fontsize=8.5)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.margins(x=0.02)
        axes.legend(frameon=False, loc="upper right", fontsize=8, handlelength=1.4, borderaxespad=0)

    plans = episodes[episodes["stage"] != "sensitivity"]
    title = f"Loss on the search split over {len(episodes)} evaluations; the best is {plans['best_loss'].min():.4g}."
    return _svg("search", title, 215, draw)


def front(episodes: pd.DataFrame, plans: pd.DataFrame) -> str:
    """Accuracy against MACs: every plan as a dot, those of the front as a line.

    Args:
        episodes: columns stage, macs_ratio, accuracy (in [0, 1]).
        plans: the plans of the front, columns macs_ratio and accuracy, the cheapest first.

    Returns:
        an ``<svg>`` element.
    """

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0.1, 0.15, 0.885, 0.77))
        some = episodes[episodes["stage"] != "sensitivity"]
        axes.scatter(some["macs_ratio"], some["accuracy"], s=7, color=MUTED, alpha=0.6, linewidths=0, label="plans")
        # A plan of the front is the best up to the next one.
        line: dict[str, Any] = {"linewidth": 1.8, "drawstyle": "steps-post", "marker": "o", "markersize": 2.6}
        axes.plot(plans["macs_ratio"], plans["accuracy"], color=ACCENT, label="front", **line)
        low, high = some["macs_ratio"].min(), some["macs_ratio"].max()
        margin = max(0.02 * (high - low), 0.005)
        axes.set_xlim(low - margin, high + margin)
        axes.set_xlabel("MACs kept")
        axes.set_title("accuracy", loc="left", color=MUTED, fontsize=8.5)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axes.legend(frameon=False, loc="lower right", fontsize=8, handlelength=1.4, borderaxespad=0)

    title = f"Accuracy against kept MACs of {len(episodes)} plans; {len(plans)} of them are on the front."
    return _svg("front", title, 215, draw)


def finetune_progress(history: pd.DataFrame) -> str:
    """Accuracy and loss on the training batches after every epoch.

    Args:
        history: columns epoch, loss (nats), accuracy (in [0, 1]).

    Returns:
        an ``<svg>`` element.
    """

    def draw(figure: Figure) -> None:
        marker = "o" if len(history) < 40 else ""
        for place, column, colour in ((0.6, "accuracy", ACCENT), (0.15, "loss", SECOND)):
            axes: Axes = figure.add_axes((0.1, place, 0.885, 0.32))
            axes.plot(history["epoch"], history[column], color=colour, linewidth=1.6, marker=marker, markersize=2.6)
            axes.set_title(column, loc="left", color=colour, fontsize=8.5)
            axes.yaxis.set_major_locator(MaxNLocator(nbins=3, min_n_ticks=2))
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
            if column == "accuracy":
                axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
                axes.tick_params(labelbottom=False)
            else:
                axes.set_xlabel("epoch")

    last = history.iloc[-1]
    title = f"Training accuracy while fine-tuning: {100 * last['accuracy']:.1f} % after epoch {int(last['epoch'])}."
    return _svg("finetune", title, 215, draw)


def _svg(name: str, title: str, height: float, draw: Callable[[Figure], None]) -> str:
    """The SVG element of a figure: the same bytes for the same data, no word in it that the page does not show."""
    text = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH, height / 72))
        draw(figure)
        unnamed = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=unnamed)
    svg = text.getvalue()
    body = svg[svg.index("</defs>") + len("</defs>") :]
    for colour, page_colour in PAGE_COLOURS.items():
        body = body.replace(colour, page_colour)
    # Several figures share one page: their ids must differ.
    body = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", body)
    box = f"0 0 {72 * WIDTH:g} {height:g}"
    return f'<svg viewBox="{box}" role="img" aria-label="{escape(title)}">{body}'
