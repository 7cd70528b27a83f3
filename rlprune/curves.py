"""The figure of a comparison: best loss so far against evaluations, a line and a band a method."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rlprune.files import write_atomic

# Colours that people with colour blindness tell apart (Okabe and Ito, 2008; Tol, 2021), one a method for good.
COLOURS = {
    "ppo": "#0072B2",
    "cma-es": "#D55E00",
    "evolution": "#009E73",
    "random": "#999999",
    "amc": "#CC79A7",
    "sensitivity": "#000000",
    "uniform": "#8C6D31",
    "global-l1": "#E69F00",
    "sac": "#56B4E9",
    "td3": "#332288",
    "ddpg": "#882255",
}
DASHES = {"uniform": ":", "global-l1": "-."}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "comparison",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e5e5e5",
}


def draw_comparison(curves: Sequence[dict[str, Any]], evaluations: int, title: str, folder: Path) -> None:
    """Write `comparison.png` and `comparison.svg`.

    A method's line is the mean over its seeds, its band goes from the lowest to the highest; methods that name a single
    plan are horizontal lines. The legend has the lowest loss first.

    Args:
        curves: records of method, seed, evaluation and best_loss.
        evaluations: right edge of the figure; a run that ended before is continued as it ended.
        title: what was compared on what.
        folder: where they go.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.2), layout="constrained")
        axes = figure.add_subplot()
        methods = dict.fromkeys(row["method"] for row in curves)
        grids = {
            method: best_so_far([row for row in curves if row["method"] == method], evaluations) for method in methods
        }
        for method in sorted(methods, key=lambda name: grids[name][:, -1].mean()):
            _draw(axes, method, grids[method])
        _frame(axes, list(grids.values()), title)
        write_atomic(folder / "comparison.png", lambda path: figure.savefig(path, dpi=160))
        write_atomic(folder / "comparison.svg", lambda path: figure.savefig(path, metadata={"Date": None}))


def best_so_far(rows: Sequence[dict[str, Any]], evaluations: int) -> np.ndarray:
    """(seeds, evaluations) best loss after 1, 2, ... evaluations; NaN before a run's first plan."""
    seeds = list(dict.fromkeys(row["seed"] for row in rows))
    grid = np.full((len(seeds), evaluations), np.nan)
    for row in rows:
        # Later rows of a run overwrite the rest of it: what is best stays so until it is beaten.
        grid[seeds.index(row["seed"]), row["evaluation"] - 1 :] = row["best_loss"]
    return grid


def _draw(axes: Axes, method: str, grid: np.ndarray) -> None:
    colour, steps = COLOURS[method], np.arange(1, grid.shape[1] + 1)
    mean = grid.mean(axis=0)
    label = f"{method}  {mean[-1]:.3f}"
    if len(np.unique(grid[:, -1])) == 1 and (np.isnan(mean) | (mean == mean[-1])).all():
        axes.axhline(mean[-1], color=colour, linewidth=1.6, linestyle=DASHES.get(method, "--"), label=label)
        return
    axes.step(steps, mean, where="post", color=colour, linewidth=1.8, label=label)
    axes.fill_between(steps, grid.min(axis=0), grid.max(axis=0), step="post", color=colour, alpha=0.12, linewidth=0)


def _frame(axes: Axes, grids: list[np.ndarray], title: str) -> None:
    """What lies above all that anybody ends with is cut off: first plans may be many times worse."""
    ends = np.array([edge for grid in grids for edge in (grid[:, -1].min(), grid[:, -1].max())])
    span = max(ends.max() - ends.min(), 0.02 * abs(ends.min()), 1e-6)
    axes.set_ylim(ends.min() - 0.06 * span, ends.max() + 0.2 * span)
    axes.set_xlim(1, max(grids[0].shape[1], 2))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.set_xlabel("evaluations")
    axes.set_ylabel("best loss so far on the search images")
    axes.set_title(title, loc="left", fontsize=9)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, title="method, final mean", alignment="left")
