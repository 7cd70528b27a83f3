"""Colours that can be told apart and read, pictures without the page's colours, and a script that is made once."""

import json
import re
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import altair as alt
import pytest
import vl_convert
from PIL import Image

from rlprune.reports import vega
from rlprune.reports.vega import DARK, LIGHT, MOST_RUNS, colour, run_colour, runtime, save_picture


def luminance(hexadecimal: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    channels = [int(hexadecimal[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast ratio (WCAG 2.2)."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_words_and_marks_stand_out(palette: dict[str, str]) -> None:
    for ground in ("paper", "card"):
        for words in ("ink", "muted"):
            assert contrast(palette[words], palette[ground]) >= 4.5
    marks = ["accent", "second", *(f"run-{number}" for number in range(1, MOST_RUNS + 1))]
    for mark in marks:
        assert contrast(palette[mark], palette["card"]) >= 3
    runs = [palette[mark] for mark in marks if mark.startswith("run-")]
    for one, other in combinations(runs, 2):
        steps = zip(*([int(each[place : place + 2], 16) for place in (1, 3, 5)] for each in (one, other)), strict=True)
        assert sum(abs(a - b) for a, b in steps) > 60
    assert contrast(palette["paper"], palette["ink"]) >= 7  # what the words beside a mark are written in


def test_light_and_dark_name_the_same_colours() -> None:
    assert list(LIGHT) == list(DARK)


def test_a_run_alone_needs_no_legend() -> None:
    assert run_colour(["a"]) == alt.value(colour("accent"))
    shown = run_colour(["a", "b"]).to_dict()
    assert shown["scale"] == {"domain": ["a", "b"], "range": [colour("run-1"), colour("run-2")]}


def drawing() -> alt.TopLevelMixin:
    dots = alt.Chart(alt.NamedData("rows")).mark_point(color=colour("accent")).encode(x="a:Q", y="b:Q")
    return alt.layer(dots).properties(**vega.WIDE)


def test_a_picture_has_the_colours_of_a_light_page_and_needs_no_font_of_it(tmp_path: Path) -> None:
    save_picture(drawing(), {"rows": [{"a": 1, "b": 2}, {"a": 3, "b": 1}]}, tmp_path / "deep" / "dots")
    svg = (tmp_path / "deep" / "dots.svg").read_text()
    assert "var(" not in svg
    assert LIGHT["accent"] in svg
    assert LIGHT["muted"] in svg
    size = ElementTree.fromstring(svg).get("width")
    with Image.open(tmp_path / "deep" / "dots.png") as image:
        # Sharp in print: three pixels for one.
        assert abs(image.width - 3 * float(str(size))) <= 3
        assert image.width > 1600
        assert len(image.convert("RGB").getcolors(2**24) or ()) > 2


def test_the_same_picture_twice(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_picture(drawing(), {"rows": [{"a": 1, "b": 2}]}, tmp_path / name)
    for ending in ("svg", "png"):
        assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"two.{ending}").read_bytes()


def test_the_script_is_made_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def bundle(snippet: str) -> str:
        made.append(snippet)
        return "script"

    monkeypatch.setattr(vega, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(vl_convert, "javascript_bundle", bundle)
    assert [runtime(), runtime()] == ["script"] * 2
    assert len(made) == 1
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(vega, "cache_folder", lambda: tmp_path / "file" / "cache")
    assert runtime() == "script"
    assert len(made) == 2


def test_the_config_is_that_of_vega_lite() -> None:
    chart = alt.Chart(alt.NamedData("rows")).mark_point().to_dict() | {"config": vega.CONFIG}
    alt.Chart.from_dict(chart)  # raises where it is not
    assert set(re.findall(r"var\(--([\w-]+)\)", json.dumps(vega.CONFIG))) <= set(LIGHT)
