"""Figures of a run: the data is in them, the page's colours too, and nothing that would differ tomorrow."""

import re
from collections.abc import Callable
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest

from rlprune.plots import ACCENT, PAGE_COLOURS, SOFT, finetune_progress, front, keep_ratios, search_progress

TABLE = pd.DataFrame(
    {
        "group": ["conv1", "conv2", "a<b>&$x$"],
        "channels": [16, 32, 64],
        "kept": [4, 32, 16],
        "keep_ratio": [0.25, 1, 0.25],
    }
)
EPISODES = pd.DataFrame(
    {
        "evaluation": [1, 2, 3, 4, 5],
        "stage": ["sensitivity", "sensitivity", "start", "search", "search"],
        "loss": [9.0, 8.0, 2.0, 3.0, 1.5],
        "best_loss": [np.nan, np.nan, 2.0, 2.0, 1.5],
    }
)
HISTORY = pd.DataFrame({"epoch": [1, 2], "loss": [1.0, 0.5], "accuracy": [0.4, 0.75]})
MEASURED = pd.DataFrame(
    {
        "stage": ["sensitivity", "search", "search", "search"],
        "macs_ratio": [1.0, 0.5, 0.2, 0.5],
        "accuracy": [0.9, 0.7, 0.3, 0.8],
    }
)


def trade(episodes: pd.DataFrame) -> str:
    """The front of plans, whatever they are."""
    return front(episodes, episodes.tail(2).sort_values("macs_ratio"))


DRAWN = [
    (keep_ratios, TABLE),
    (search_progress, EPISODES),
    (finetune_progress, HISTORY),
    (trade, MEASURED),
]


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns:xlink="http://www.w3.org/1999/xlink" ', 1))


def widths(root: ElementTree.Element, colour: str) -> list[float]:
    """Of the filled paths in a colour, from their smallest to their largest abscissa."""
    spans = []
    for path in root.iter("path"):
        if f"fill: {PAGE_COLOURS[colour]}" in path.get("style", ""):
            xs = [float(x) for x in re.findall(r"[ML] ([-\d.]+) ", path.get("d", ""))]
            spans.append(max(xs) - min(xs))
    return spans


def test_bars_are_as_long_as_the_ratios() -> None:
    root = parsed(keep_ratios(TABLE))
    bars, tracks = widths(root, ACCENT), widths(root, SOFT)
    assert np.divide(bars, tracks) == pytest.approx([0.25, 1, 0.25], abs=1e-4)


def test_names_counts_and_the_uniform_line_are_words() -> None:
    texts = ["".join(text.itertext()).strip() for text in parsed(keep_ratios(TABLE)).iter("text")]
    # 4 + 32 + 16 of 16 + 32 + 64 channels
    for words in ("conv1", "a<b>&$x$", "4 / 16", "32 / 32", "uniform 46 %"):
        assert words in texts


def test_a_dot_for_every_plan_but_the_sensitivity_analysis() -> None:
    root = parsed(search_progress(EPISODES))
    dots = [g for g in root.iter("g") if g.get("id", "").startswith("search-PathCollection")]
    uses = sum(len(list(group.iter("use"))) for group in dots)
    legend = sum(g.get("id", "").startswith("search-legend") for g in root.iter("g"))
    assert legend == 1
    assert uses - 2 == 3  # the legend repeats a dot for each of the two stages
    assert "9.0" not in ["".join(text.itertext()) for text in root.iter("text")]


def test_every_epoch_is_marked_in_both_panels() -> None:
    root = parsed(finetune_progress(HISTORY))
    marks = [use for use in root.iter("use") if re.search("accent|second", use.get("style", ""))]
    assert len(marks) == 2 * len(HISTORY)


@pytest.mark.parametrize(("draw", "table"), DRAWN)
def test_a_figure_is_well_formed_labelled_and_needs_no_other_file(
    draw: Callable[[pd.DataFrame], str], table: pd.DataFrame
) -> None:
    svg = draw(table)
    root = parsed(svg)
    assert root.get("role") == "img"
    assert root.get("aria-label")
    assert "http" not in svg
    ids = re.findall(r' id="([^"]*)"', svg)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"(?:url\(#|href=\"#)([^\")]*)", svg)) <= set(ids)


def test_ids_differ_between_figures() -> None:
    ids = [set(re.findall(r' id="([^"]*)"', draw(table))) for draw, table in DRAWN]
    assert not ids[0] & ids[1]
    assert not ids[1] & ids[2]
    assert not ids[0] & ids[2]


@pytest.mark.parametrize(("draw", "table"), DRAWN)
def test_colours_come_from_the_page_alone(draw: Callable[[pd.DataFrame], str], table: pd.DataFrame) -> None:
    assert set(re.findall(r"(?:fill|stroke): ([^;\"]+)", draw(table))) <= {*PAGE_COLOURS.values(), "none"}


@pytest.mark.parametrize(("draw", "table"), DRAWN)
def test_the_same_data_gives_the_same_bytes_and_leaves_no_trace(
    draw: Callable[[pd.DataFrame], str], table: pd.DataFrame
) -> None:
    before = dict(matplotlib.rcParams)
    assert draw(table) == draw(table)
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(("draw", "table"), DRAWN)
def test_one_row_is_enough(draw: Callable[[pd.DataFrame], str], table: pd.DataFrame) -> None:
    parsed(draw(table.tail(1)))


def test_a_deep_network_and_a_diverged_plan_are_drawn() -> None:
    parsed(keep_ratios(pd.concat([TABLE.assign(group="x" * 90)] * 25, ignore_index=True)))
    parsed(search_progress(EPISODES.assign(loss=[1, 1, 2, np.inf, np.nan])))


def test_the_front_is_a_staircase_over_the_plans() -> None:
    root = parsed(trade(MEASURED))
    dots = [group for group in root.iter("g") if group.get("id", "").startswith("front-PathCollection")]
    # Three plans of the search and one in the legend; the dense network is none of them.
    assert sum(len(list(group.iter("use"))) for group in dots) == 4
    # The legend has one like it, further to the right.
    lines = [path for path in root.iter("path") if f"stroke: {PAGE_COLOURS[ACCENT]}" in path.get("style", "")]
    corners = re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", lines[0].get("d", ""))
    assert len(corners) == 3
    (_, low), (right, level), (end, high) = [(float(x), float(y)) for x, y in corners]
    assert low == level > high
    assert right == end
