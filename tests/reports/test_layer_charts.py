"""Bars are as long as what they stand for, in the picture that Vega draws of them."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from charts import SVG, drawn, marks, record, texts
from samples import write_run

from rlprune.reports.layer_charts import REACTIONS, channels, macs, reactions
from rlprune.reports.records import read_records
from rlprune.reports.vega import Chart, colour


def width(path: ElementTree.Element) -> float:
    """Of a rectangle, by the horizontal line that begins it."""
    return float(re.match(r"M[-\d.]+,[-\d.]+h([-\d.]+)", str(path.get("d")))[1])  # type: ignore[index]


def lengths(chart: Chart) -> dict[str, float]:
    """Of all bars by their words, as shares of the track behind them."""
    root = drawn(chart)
    tracks = {width(path) for path in root.iter(f"{SVG}path") if path.get("fill") == colour("soft")}
    (track,) = tracks
    return {words: width(path) / track for words, path in marks(root).items()}


RATIOS = pd.DataFrame(
    {
        "group": ["conv1", "null", "a<b>&$x$"],
        "channels": [16, 32, 64],
        "kept": [4, 32, 16],
        "macs_before": [1000, 2_000_000, 4000],
        "macs_after": [100, 1_000_000, 4000],
    }
)


def test_bars_are_as_long_as_what_stays() -> None:
    chart = channels([record(ratios=RATIOS)])
    assert chart is not None
    expected = {"conv1: 4 / 16": 0.25, "null: 32 / 32": 1.0, "a<b>&$x$: 16 / 64": 0.25}
    assert lengths(chart) == pytest.approx(expected)
    assert {"conv1", "null", "a<b>&$x$", "4 / 16", "32 / 32", "16 / 64"} <= set(texts(drawn(chart)))
    assert "46.4 %" in chart.caption  # 52 of 112
    assert "46.4 %" in chart.summary


def test_a_block_that_is_out_is_told_as_such() -> None:
    table = RATIOS.assign(kept=[4, 32, 0], macs_after=[100, 1_000_000, 0])
    for make in (channels, macs):
        chart = make([record(ratios=table)])
        assert chart is not None
        assert "block out" in texts(drawn(chart))
        assert lengths(chart)["a<b>&$x$: block out"] == 0


def test_the_dashed_line_is_where_all_groups_together_would_end() -> None:
    chart = macs([record(ratios=RATIOS)])
    assert chart is not None
    root = drawn(chart)
    (track,) = {width(path) for path in root.iter(f"{SVG}path") if path.get("fill") == colour("soft")}
    rules = [line for line in root.iter(f"{SVG}line") if line.get("stroke") == colour("second")]
    places = [float(re.match(r"translate\(([\d.]+)", str(line.get("transform")))[1]) for line in rules]  # type: ignore[index]
    assert places == pytest.approx([track * 1_004_100 / 2_005_000] * len(places), abs=1)
    assert places
    assert "null: 1.00 M / 2.00 M" in marks(drawn(chart))


def test_a_run_from_before_the_costs_of_groups_has_no_chart_of_macs() -> None:
    assert macs([record(ratios=RATIOS.drop(columns="macs_after"))]) is None
    assert channels([record()]) is None
    assert reactions([record(ratios=RATIOS)]) is None


def test_several_runs_have_a_bar_each_in_every_group_and_colours_of_their_own() -> None:
    other = RATIOS.assign(group=["conv1", "null", "other"], kept=[8, 16, 64])
    chart = channels([record("a", ratios=RATIOS), record("b", ratios=other)])
    assert chart is not None
    bars = [path for path in drawn(chart).iter(f"{SVG}path") if path.get("aria-roledescription") == "bar"]
    widths = [[width(bar) for bar in bars if bar.get("fill") == colour(name)] for name in ("run-1", "run-2")]
    np.testing.assert_allclose(np.divide(widths, np.max(widths)), [[0.25, 1, 0.25], [0.5, 0.5, 1]])
    tops = [float(str(bar.get("d")).split(",")[1].split("h")[0]) for bar in bars]
    assert len(set(np.round(tops, 3))) == 6  # no bar hides another
    assert texts(drawn(chart)).count("conv1") == 1
    assert {"a", "b", "other"} <= set(texts(drawn(chart)))


def test_the_strongest_reactions_are_drawn_in_words(tmp_path: Path) -> None:
    seen = pd.DataFrame(
        {"observation": [f"static_q{q}" for q in range(20)] + ["wished", "new"], "change": [0.01] * 20 + [0.3, 0.15]}
    )
    chart = reactions([record(reactions=seen)])
    assert chart is not None
    found = lengths(chart)
    assert list(found)[:3] == [
        "that ratio, scaled to what is left: 0.300",
        "new: 0.150",
        "channel scores, 0 % quantile: 0.010",
    ]
    assert len(found) == REACTIONS
    assert list(found.values())[:3] == pytest.approx([1, 0.5, 1 / 30])


def test_a_policy_that_reacts_to_nothing_is_drawn() -> None:
    chart = reactions([record(reactions=pd.DataFrame({"observation": ["depth"], "change": [0.0]}))])
    assert chart is not None
    assert [width(path) for path in marks(drawn(chart)).values()] == [0]


def test_long_names_end_before_the_numbers_begin() -> None:
    chart = channels([record(ratios=RATIOS.assign(group=["x" * 200, "b", "c"]))])
    assert chart is not None
    (name,) = [text for text in texts(drawn(chart, 300)) if text.startswith("x")]
    assert name.endswith("…")
    assert len(name) < 60


@pytest.mark.parametrize("number", [1, 2, 8])
def test_every_chart_of_bars_is_valid_vega_lite(tmp_path: Path, number: int) -> None:
    records = read_records([write_run(tmp_path / str(seed), seed=seed, groups=40) for seed in range(number)])
    for draw in (channels, macs, reactions):
        chart: Any = draw(records)
        assert chart.drawing.to_dict()  # raises where it is not
        colours = set(re.findall(r'(?:fill|stroke)="([^"]+)"', ElementTree.tostring(drawn(chart), encoding="unicode")))
        # Without the page's config axes and legends have Vega's own greys.
        assert {each for each in colours if each.startswith("var(")} >= {colour("soft"), colour("ink")}
