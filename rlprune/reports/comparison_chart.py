"""The figure of a comparison: best loss so far against evaluations, a line and a band a method."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np

from rlprune import registry
from rlprune.reports.vega import Row, colour, save_picture
from rlprune.runs.comparison import name_of

# Colours that people with colour blindness tell apart (Okabe and Ito, 2008; Tol, 2021), but for some of the rules that
# name a single plan, whose lines are dashed.
COLOURS = (
    "#DDCC77", "#CC79A7", "#D55E00", "#882255", "#117733", "#661100", "#6699CC", "#009E73", "#F781BF", "#E69F00",
    "#999933", "#0072B2", "#7F3FBF", "#999999", "#56B4E9", "#000000", "#332288", "#8C6D31", "#FF6F61", "#44AA99",
    "#AA4499",
)  # fmt: skip
DASHES = ([6, 3], [2, 3], [6, 3, 2, 3])
"""Of methods that name a single plan, one after the other."""


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
    methods = dict.fromkeys(row["method"] for row in curves)
    grids = {method: best_so_far([row for row in curves if row["method"] == method], evaluations) for method in methods}
    order = sorted(grids, key=lambda method: grids[method][:, -1].mean())
    labels = {method: f"{method}  {grids[method][:, -1].mean():.3f}" for method in order}
    rows = [row for method in order for row in _rows(labels[method], grids[method])]
    save_picture(_drawing(labels, [grids[method] for method in order], title), {"curves": rows}, folder / "comparison")


def best_so_far(rows: Sequence[dict[str, Any]], evaluations: int) -> np.ndarray:
    """(seeds, evaluations) best loss after 1, 2, ... evaluations; NaN before a run's first plan."""
    seeds = list(dict.fromkeys(row["seed"] for row in rows))
    grid = np.full((len(seeds), evaluations), np.nan)
    for row in rows:
        # Later rows of a run overwrite the rest of it: what is best stays so until it is beaten.
        grid[seeds.index(row["seed"]), row["evaluation"] - 1 :] = row["best_loss"]
    return grid


def _rows(label: str, grid: np.ndarray) -> list[Row]:
    """Mean, lowest and highest after every evaluation; the line of a single plan goes from end to end."""
    if _is_level(grid):
        grid = np.full_like(grid, grid[0, -1])
    columns = zip(grid.mean(axis=0), grid.min(axis=0), grid.max(axis=0), strict=True)
    return [
        {"method": label, "evaluation": number, "mean": float(mean), "low": float(low), "high": float(high)}
        for number, (mean, low, high) in enumerate(columns, start=1)
        # Where only some runs have a plan yet there is no mean.
        if not np.isnan(mean)
    ]


def _is_level(grid: np.ndarray) -> bool:
    """Whether all runs end with the one plan that they begin with."""
    return len(np.unique(grid[:, -1])) == 1 and bool((np.isnan(grid) | (grid == grid[0, -1])).all())


def colours(methods: Sequence[str]) -> list[str]:
    """A colour for every method: its own wherever it is drawn, unless another one here has the same."""
    known = registry.names("allocator")
    chosen: list[str] = []
    for method in methods:
        name = name_of(method)
        place = known.index(name) if name in known else len(known)
        order = [COLOURS[(place + shift) % len(COLOURS)] for shift in range(len(COLOURS))]
        chosen.append(next((colour for colour in order if colour not in chosen), order[0]))
    return chosen


def _drawing(labels: Mapping[str, str], grids: list[np.ndarray], title: str) -> alt.TopLevelMixin:
    """What lies above all that anybody ends with is cut off: first plans may be many times worse."""
    ends = np.array([edge for grid in grids for edge in (grid[:, -1].min(), grid[:, -1].max())])
    span = max(ends.max() - ends.min(), 0.02 * abs(ends.min()), 1e-6)
    reach = alt.Scale(domain=[ends.min() - 0.06 * span, ends.max() + 0.2 * span], nice=False)
    legend = alt.Legend(
        orient="right", direction="vertical", columns=1, offset=12, symbolType="stroke", symbolSize=300,
        title="method, final mean", titleFontWeight="normal", titleColor=colour("muted"),
    )  # fmt: skip
    names, level = list(labels.values()), [_is_level(grid) for grid in grids]
    dashes = [DASHES[sum(level[:place]) % len(DASHES)] if flat else [1, 0] for place, flat in enumerate(level)]
    base = alt.Chart(alt.NamedData("curves")).encode(
        x=alt.X("evaluation:Q", title="evaluations", scale=alt.Scale(domain=[1, max(grids[0].shape[1], 2)])),
        color=alt.Color("method:N", scale=alt.Scale(domain=names, range=colours(list(labels))), legend=legend),
    )
    step: dict[str, Any] = {"interpolate": "step-after", "clip": True}
    loss = "best loss so far on the search images, nats"
    return (
        alt.layer(
            base.mark_area(opacity=0.12, **step).encode(y=alt.Y("low:Q", scale=reach, title=loss), y2="high:Q"),
            base.mark_line(strokeWidth=2, **step).encode(
                y=alt.Y("mean:Q", scale=reach),
                strokeDash=alt.StrokeDash("method:N", scale=alt.Scale(domain=names, range=dashes), legend=legend),
            ),
        )
        .properties(title=alt.TitleParams(title, anchor="start", offset=12, color=colour("ink"), fontSize=13))
        .properties(height=320)
    )
