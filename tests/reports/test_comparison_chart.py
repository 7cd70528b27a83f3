"""The figure shows what the curves say."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from rlprune import registry
from rlprune.reports.comparison_chart import COLOURS, _drawing, _rows, best_so_far, colours, draw_comparison


def rows(method: str, seed: int, **losses: float) -> list[dict[str, object]]:
    """Curves as they stand in the file: at1=3.0 is a best loss of 3 after one evaluation."""
    return [
        {"method": method, "seed": seed, "evaluation": int(name[2:]), "best_loss": loss}
        for name, loss in losses.items()
    ]


CURVES = [
    *rows("random", 0, at1=5.0, at2=4.0, at4=2.0),
    *rows("random", 1, at1=3.0, at3=1.0),
    *rows("uniform", 0, at1=4.5),
    *rows("sensitivity", 0, at3=2.5),
    *rows("sensitivity", 1, at3=2.5),
]


def test_what_is_best_stays_until_it_is_beaten() -> None:
    grid = best_so_far(CURVES[:5], 6)
    assert grid.tolist() == [[5, 4, 4, 2, 2, 2], [3, 3, 1, 1, 1, 1]]
    late = best_so_far(CURVES[6:], 4)
    assert np.isnan(late[:, :2]).all()
    assert late[:, 2:].tolist() == [[2.5, 2.5]] * 2


def test_a_line_for_the_mean_and_a_band_from_the_lowest_to_the_highest() -> None:
    found = _rows("random", best_so_far(CURVES[:5], 4))
    assert [row["mean"] for row in found] == [4, 3.5, 2.5, 1.5]
    assert [(row["low"], row["high"]) for row in found] == [(3, 5), (3, 4), (1, 4), (1, 2)]


def test_before_every_run_has_a_plan_there_is_no_mean() -> None:
    grid = np.array([[np.nan, 2.0, 1.0], [np.nan, np.nan, 3.0]])
    assert _rows("ppo", grid) == [{"method": "ppo", "evaluation": 3, "mean": 2.0, "low": 1.0, "high": 3.0}]


@pytest.mark.parametrize("method", ["uniform", "sensitivity"])
def test_a_method_of_one_plan_is_level_from_end_to_end(method: str) -> None:
    found = _rows(method, best_so_far([row for row in CURVES if row["method"] == method], 4))
    assert [row["evaluation"] for row in found] == [1, 2, 3, 4]
    assert len({(row["mean"], row["low"], row["high"]) for row in found}) == 1


def test_what_lies_far_above_all_ends_is_cut_off() -> None:
    grids = [np.array([[1e9, 2.0]]), np.array([[1e9, 3.0]])]
    spec = json.loads(_drawing({"ppo": "ppo", "random": "random"}, grids, "").to_json())
    low, high = spec["layer"][0]["encoding"]["y"]["scale"]["domain"]
    assert 1.5 < low < 2 < 3 < high < 3.5


def test_both_files_are_written_and_name_every_method(tmp_path: Path) -> None:
    draw_comparison(CURVES, 6, "a & b: keep ≤ 30 %", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["comparison.png", "comparison.svg"]
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    svg = (tmp_path / "comparison.svg").read_bytes()
    texts = ["".join(text.itertext()).strip() for text in ElementTree.fromstring(svg).iter() if "text" in text.tag]
    legend = [text for text in texts if text.split(" ")[0] in registry.names("allocator")]
    assert [text.split() for text in legend] == [["random", "1.500"], ["sensitivity", "2.500"], ["uniform", "4.500"]]
    assert "a & b: keep ≤ 30 %" in texts
    png = (tmp_path / "comparison.png").read_bytes()
    draw_comparison(CURVES, 6, "a & b: keep ≤ 30 %", tmp_path)
    assert (tmp_path / "comparison.png").read_bytes() == png


def test_a_single_plan_of_a_single_method_is_drawn(tmp_path: Path) -> None:
    draw_comparison(rows("uniform", 0, at1=0.0), 1, "", tmp_path)


def test_every_method_has_a_colour_of_its_own() -> None:
    methods = registry.names("allocator")
    assert len(set(colours(methods))) == len(methods) == len(COLOURS)
    # Wherever it is drawn, and whatever its settings.
    assert colours(["random", "ppo:epochs=2"]) == [colours(methods)[methods.index(name)] for name in ("random", "ppo")]
    assert len(set(colours(["ppo", "ppo:epochs=2", "ppo:epochs=3"]))) == 3
    assert colours(["ppo@l1", "ppo:epochs=2@l1"])[0] == colours(["ppo"])[0]
