"""The figure shows what the curves say."""

from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from rlprune.curves import COLOURS, _draw, best_so_far, draw_comparison
from rlprune.settings import METHODS


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
    axes = Figure().add_subplot()
    _draw(axes, "random", best_so_far(CURVES[:5], 4))
    (line,) = axes.lines
    assert line.get_ydata().tolist() == [4, 3.5, 2.5, 1.5]  # type: ignore[union-attr]
    (band,) = axes.collections
    edges = band.get_paths()[0].get_extents()
    assert (edges.y0, edges.y1) == (1, 5)
    assert line.get_label() == "random  1.500"


@pytest.mark.parametrize("method", ["uniform", "sensitivity"])
def test_a_method_of_one_plan_is_a_horizontal_line(method: str) -> None:
    axes = Figure().add_subplot()
    _draw(axes, method, best_so_far([row for row in CURVES if row["method"] == method], 4))
    (line,) = axes.lines
    assert len(set(line.get_ydata())) == 1  # type: ignore[arg-type]
    assert not axes.collections


def test_both_files_are_written_and_name_every_method(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    draw_comparison(CURVES, 6, "a & b: keep ≤ 30 %", tmp_path)
    assert dict(matplotlib.rcParams) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["comparison.png", "comparison.svg"]
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    svg = (tmp_path / "comparison.svg").read_bytes()
    texts = ["".join(text.itertext()).strip() for text in ElementTree.fromstring(svg).iter() if "text" in text.tag]
    legend = [text for text in texts if text.split("  ")[0] in METHODS]
    assert legend == ["random  1.500", "sensitivity  2.500", "uniform  4.500"]
    assert "a & b: keep ≤ 30 %" in texts
    draw_comparison(CURVES, 6, "a & b: keep ≤ 30 %", tmp_path)
    assert (tmp_path / "comparison.svg").read_bytes() == svg


def test_a_single_plan_of_a_single_method_is_drawn(tmp_path: Path) -> None:
    draw_comparison(rows("uniform", 0, at1=0.0), 1, "", tmp_path)


def test_every_method_has_a_colour_of_its_own() -> None:
    assert set(COLOURS) == set(METHODS)
    assert len(set(COLOURS.values())) == len(COLOURS)
