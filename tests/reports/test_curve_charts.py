"""The charts of a run's course hold every plan, in their right places."""

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import vl_convert
from charts import SVG, drawn, marks, record, texts
from samples import write_run

from rlprune.reports.curve_charts import FRONT, PROBE, SEARCH, finetune, front, search, tunings
from rlprune.reports.records import Record, read_records
from rlprune.reports.vega import Chart, colour

EPISODES = pd.DataFrame(
    {
        "evaluation": [1, 2, 3, 4, 5, 6],
        "stage": ["sensitivity", "sensitivity", "search", "search", "search", "search"],
        "loss": [9.0, 8.0, 2.0, 3.0, 1.5, 1.8],
        "accuracy": [0.9, 0.8, 0.5, 0.3, 0.6, 0.55],
        "macs_ratio": [1.0, 0.9, 0.3, 0.3, 0.2, 0.3],
        "params_ratio": [1.0, 0.9, 0.5, 0.5, 0.4, 0.5],
        "best_loss": [np.nan, np.nan, 2.0, 2.0, 1.5, 1.5],
        "counts": ["8 8", "4 8", "2 4", "3 3", "1 5", "2 5"],
    }
)


def run(**settings: Any) -> Record:
    mine = record(episodes=EPISODES)
    return Record(mine.folder, mine.name, {}, settings, {}, "", mine.tables)


def points(chart: Chart, where: str = "") -> dict[str, tuple[float, float]]:
    """Where a chart of 500 pixels has its marks, by their words."""
    found = {}
    for words, path in marks(drawn(chart, 500)).items():
        if where in words:
            x, y = re.match(r"translate\(([-\d.]+),([-\d.]+)\)", str(path.get("transform"))).groups()  # type: ignore[union-attr]
            found[words] = (float(x), float(y))
    return found


def domain(chart: Chart) -> tuple[float, float]:
    """What the vertical axis shows."""
    layers = [layer["encoding"].get("y", {}).get("scale", {}) for layer in chart.drawing.to_dict()["layer"]]
    return next(scale["domain"] for scale in layers if "domain" in scale)


def test_a_dot_for_every_plan_of_the_search_where_its_loss_is() -> None:
    chart = search([run(budget=0.3)])
    assert chart is not None
    places = points(chart)
    assert [re.sub(r",.*", "", words) for words in places] == [
        "evaluation 3",
        "evaluation 4",
        "evaluation 5",
        "evaluation 6",
    ]
    xs, ys = np.array(list(places.values())).T
    # Straight lines through the first two tell where the others must be.
    np.testing.assert_allclose(xs, np.polyval(np.polyfit([3, 4], xs[:2], 1), [3, 4, 5, 6]), atol=1e-3)
    np.testing.assert_allclose(ys, np.polyval(np.polyfit([2, 3], ys[:2], 1), [2, 3, 1.5, 1.8]), atol=1e-3)
    assert "loss 1.5, accuracy 60.0 %; MACs kept 20.0 %, parameters 40.0 %" in list(places)[2]


def test_the_best_so_far_falls_in_steps_and_the_baselines_are_level() -> None:
    chart = search([run(budget=0.3)])
    assert chart is not None
    lines: dict[str, list[tuple[int, float]]] = {}
    for row in chart.data["lines"]:
        lines.setdefault(row["line"], []).append((row["evaluation"], row["loss"]))
    assert lines == {
        "best so far": [(3, 2.0), (5, 1.5), (6, 1.5)],
        "sensitivity rule": [(3, 2.0), (6, 2.0)],
        "uniform": [(3, 3.0), (6, 3.0)],
    }
    assert chart.summary == "run: best loss 1.5, sensitivity rule 2, uniform 3"
    strokes = [path.get("stroke") for path in drawn(chart).iter(f"{SVG}path") if path.get("stroke-width") == "2"]
    assert {colour("accent"), colour("second"), colour("ink")} <= set(strokes)
    assert "sensitivities" in texts(drawn(chart))


def test_the_best_that_a_corrected_budget_does_not_admit_is_none() -> None:
    """The plan with loss 1.5 no longer counts when the last is measured."""
    plain = search([run(budget=0.3)])
    mine = record(episodes=EPISODES.assign(best_loss=[np.nan, np.nan, 2.0, 2.0, 1.5, 1.8]))
    chart = search([mine])
    assert plain is not None
    assert chart is not None
    assert chart.summary.startswith(f"{mine.name}: best loss 1.8")
    assert mine.best_loss() == 1.8
    assert "The best rises where the model of the latency was corrected" in chart.caption
    assert "rises" not in plain.caption


@pytest.mark.parametrize("settings", [{"budget": "0.2:0.8"}, {"reward": "balance:macs=1"}])
def test_a_search_that_does_not_open_with_baselines_has_none(settings: dict[str, Any]) -> None:
    chart = search([run(**settings)])
    assert chart is not None
    assert {row["line"] for row in chart.data["lines"]} == {"best so far"}
    assert "uniform" not in texts(drawn(chart))


def test_tunings_have_a_chart_like_that_of_the_search() -> None:
    tuned = EPISODES.iloc[2:].assign(evaluation=[1, 2, 3, 4], stage="tuning")
    chart = tunings([record(tunings=tuned), record("other", episodes=EPISODES)])
    assert chart is not None
    assert [row["told"].split(",")[0] for row in chart.data["tuned"]] == [f"tuning {place}" for place in (1, 2, 3, 4)]
    lines = {(row["line"], row["evaluation"]): row["loss"] for row in chart.data["tuned-lines"]}
    assert lines == {
        ("best so far", 1): 2.0, ("best so far", 3): 1.5, ("best so far", 4): 1.5,
        ("sensitivity rule", 1): 2.0, ("sensitivity rule", 4): 2.0, ("uniform", 1): 3.0, ("uniform", 4): 3.0,
    }  # fmt: skip
    assert chart.summary == "run: best loss 1.5"
    assert len(points(chart, "tuning ")) == 4
    assert tunings([run(budget=0.3)]) is None


def test_longer_tunings_start_anew_beside_the_brief_ones() -> None:
    """The baselines have had the brief one only, and end with it."""
    rows = EPISODES.iloc[2:].assign(evaluation=[1, 2, 3, 4], stage=["96 images"] * 2 + ["384 images"] * 2)
    chart = tunings([record(tunings=rows.assign(best_loss=[2.0, 2.0, 0.9, 0.8]))])
    assert chart is not None
    lines = {(row["line"], row["evaluation"]): row["loss"] for row in chart.data["tuned-lines"]}
    assert lines == {
        ("best so far", 1): 2.0, ("best so far", 2): 2.0, ("best so far", 3): 0.9, ("best so far", 4): 0.8,
        ("sensitivity rule", 1): 2.0, ("sensitivity rule", 2): 2.0, ("uniform", 1): 3.0, ("uniform", 2): 3.0,
    }  # fmt: skip
    assert "starts anew" in chart.caption
    assert [row["told"].split(";")[0] for row in chart.data["tuned"]] == [
        "tuning 1, 96 images", "tuning 2, 96 images", "tuning 3, 384 images", "tuning 4, 384 images",
    ]  # fmt: skip


def test_no_best_plan_no_chart() -> None:
    assert search([record(episodes=EPISODES.assign(best_loss=np.nan))]) is None
    assert search([record(episodes=EPISODES.head(2))]) is None
    assert front([record()]) is None


def test_what_is_many_times_worse_is_left_out_and_told() -> None:
    many = pd.concat([EPISODES.iloc[[3]]] * 60, ignore_index=True).assign(loss=np.linspace(1, 2, 60), best_loss=1.0)
    many.loc[0, "loss"], many["evaluation"] = 1e6, np.arange(1, 61)
    chart = search([record(episodes=many.assign(loss=many["loss"].iloc[::-1].to_numpy()))])
    assert chart is not None
    assert "of 60 plans lie above the picture" in chart.caption
    low, high = domain(chart)
    assert low < 1 < 2 < high < 3


def test_a_plan_that_diverged_is_in_no_chart() -> None:
    worse = EPISODES.assign(loss=[1, 1, 2, np.inf, np.nan, 1.5])
    for draw in (search, front):
        chart = draw([record(episodes=worse)])
        assert chart is not None
        assert not {"evaluation 4", "evaluation 5"} & {row["told"].split(",")[0] for row in chart.data["plans"]}
        json.dumps(chart.data, allow_nan=False)


def test_every_plan_is_at_its_accuracy_and_macs_and_the_front_is_not_dominated() -> None:
    chart = front([record(episodes=EPISODES, ratios=pd.DataFrame({"kept": [1, 5]}))])
    assert chart is not None
    places = points(chart)
    assert len(places) == 7
    assert sum(words.startswith("final plan: evaluation 5") for words in places) == 1
    assert sum(PROBE in words for words in places) == 2
    xs, ys = np.array(list(places.values()))[:6].T
    macs, accuracy = EPISODES["macs_ratio"].to_numpy(), EPISODES["accuracy"].to_numpy()
    np.testing.assert_allclose(np.corrcoef(xs, macs)[0, 1], 1)
    np.testing.assert_allclose(np.corrcoef(ys, accuracy)[0, 1], -1)
    # The plan with the lowest loss is also the cheapest: nothing else can be on the front.
    assert [(row["macs"], row["accuracy"]) for row in chart.data["front"]] == [(20, 60)]


def test_a_front_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    number = 60
    many = pd.concat([EPISODES.iloc[[3]]] * number, ignore_index=True)
    many = many.assign(loss=rng.uniform(1, 2, number), macs_ratio=rng.integers(2, 9, number) / 10)
    chart = front([record(episodes=many.assign(accuracy=np.arange(number) / 1000))])
    assert chart is not None
    costs, losses = many["macs_ratio"].to_numpy(), many["loss"].to_numpy()
    beaten = [((costs <= cost) & (losses < loss)).any() for cost, loss in zip(costs, losses, strict=True)]
    expected = {round(place / 10, 4) for place in np.flatnonzero(np.logical_not(beaten))}
    assert {round(row["accuracy"], 4) for row in chart.data["front"]} == expected


def test_the_front_of_a_range_is_the_one_it_has_marked() -> None:
    marked = pd.DataFrame({"counts": ["1 5", "4 8"]})
    chart = front([record(episodes=EPISODES, front=marked)])
    assert chart is not None
    assert [(row["macs"], row["kind"]) for row in chart.data["front"]] == [(20, FRONT), (90, FRONT)]


def test_the_legend_names_only_what_is_there() -> None:
    chart = front([record(episodes=EPISODES[EPISODES["stage"] == "search"])])
    assert chart is not None
    words = texts(drawn(chart))
    assert SEARCH in words
    assert PROBE not in words
    assert "final plan" not in words


def test_every_epoch_is_marked() -> None:
    history = pd.DataFrame({"epoch": [1, 2, 3], "loss": [1.0, 0.5, 0.25], "accuracy": [0.4, 0.75, 0.8]})
    chart = finetune([record(finetune=history)])
    assert chart is not None
    assert list(points(chart)) == [
        "epoch 1: accuracy 40.0 %, loss 1",
        "epoch 2: accuracy 75.0 %, loss 0.5",
        "epoch 3: accuracy 80.0 %, loss 0.25",
    ]
    ticks = [text for text in texts(drawn(chart)) if text.isdigit() and int(text) <= 3]
    assert ticks == ["1", "2", "3"]
    assert finetune([record()]) is None


@pytest.mark.parametrize("number", [1, 2, 8])
def test_every_chart_is_valid_vega_lite_and_names_its_data(tmp_path: Path, number: int) -> None:
    records = read_records([write_run(tmp_path / f"run{seed}", seed=seed) for seed in range(number)])
    for draw in (search, front, finetune):
        chart: Any = draw(records)
        spec = chart.drawing.to_dict()  # raises where it is not
        named = {part["name"] for part in _data_of(spec) if "name" in part}
        assert named == set(chart.data)
        svg = drawn(chart)
        if number > 1:
            assert {f"run{seed}" for seed in range(number)} <= set(texts(svg))
        assert ElementTree.tostring(svg)


def _data_of(spec: Any) -> list[dict[str, Any]]:
    inner = [part for layer in spec.get("layer", ()) for part in _data_of(layer)]
    return [*([spec["data"]] if "data" in spec else []), *inner]


def test_vega_reads_the_charts_as_they_are_meant(tmp_path: Path) -> None:
    """No warning of the compiler: it would stand in the console of everybody who opens a page."""
    for chart in filter(
        None, (draw(read_records([write_run(tmp_path / "run")])) for draw in (search, front, finetune))
    ):
        compiled = vl_convert.vegalite_to_vega(chart.drawing.to_dict() | {"datasets": chart.data})
        assert compiled["autosize"] == {"type": "fit-x", "contains": "padding"}


def test_a_range_beside_a_single_budget_has_no_part_in_the_chart_of_the_search() -> None:
    single, ranged = run(budget=0.3), record("range", episodes=EPISODES.assign(best_loss=np.nan, loss=100.0))
    chart = search([single, ranged])
    assert chart is not None
    assert len(points(chart)) == 4
    assert "of 4 plans" in chart.caption or "plans lie above" not in chart.caption
    _, high = domain(chart)
    assert high < 10
