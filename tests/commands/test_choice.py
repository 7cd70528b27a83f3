"""What a search ends on: the plan that is ahead after a brief fine-tuning, its own or a simple one."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from workshop import Interrupting, episodes, kept_counts, same_weights

import rlprune

STAGE = "choosing between {} plans, tuned on 96 images"


@pytest.fixture(scope="module")
def chosen(shop: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder, settings = tmp_path_factory.mktemp("chosen") / "run", shop.search | {"finetune_epochs": 4}
    return SimpleNamespace(folder=folder, settings=settings, result=rlprune.search(**settings, out=folder))


def tunings(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "tunings.csv").drop(columns="seconds")


def test_the_plan_with_the_lowest_loss_after_tuning_is_pruned(chosen: Any) -> None:
    table, choice = tunings(chosen.folder), chosen.result["choice"]
    assert set(table["stage"]) == {"96 images"} == {chosen.result["tuned_on"]}
    assert sorted(row["loss"] for row in choice) == [row["loss"] for row in choice]
    assert sorted(table["loss"]) == pytest.approx([row["loss"] for row in choice], abs=1e-6)
    best = table.loc[table["loss"].idxmin()]
    assert best["counts"] == kept_counts(chosen.folder)
    assert {"sensitivity", "additive-dp"} <= {row["plan"] for row in choice}
    assert (table["macs_ratio"] <= 0.15).all()
    # Its one-shot loss, which may have been measured for this report alone.
    known = {row["counts"]: float(row["loss"]) for row in episodes(chosen.folder)}
    assert chosen.result["search_loss"] == pytest.approx(known[best["counts"]], abs=1e-6)
    assert (chosen.result["held_images"], chosen.result["held_from_dense"]) == (24, False)
    assert "tunings" not in chosen.result


def test_what_the_search_has_found_is_one_of_them(chosen: Any) -> None:
    """It has the lowest one-shot loss of all."""
    rows = [row for row in episodes(chosen.folder) if row["stage"] == "search"]
    best = min(rows, key=lambda row: float(row["loss"]))
    assert best["counts"] in set(tunings(chosen.folder)["counts"])


def test_the_page_and_the_screen_tell_of_it(chosen: Any) -> None:
    first = chosen.result["choice"][0]
    page = (chosen.folder / "report.html").read_text()
    assert f"loss after 96 images: {first['plan']} {first['loss']:.3f}" in page
    # Four plans make no curve.
    assert '"tuned-lines"' not in page


# The base plans were tuned before the search, whose losses did not tell them apart.
@pytest.mark.parametrize("after", [3, 4])
def test_an_interrupted_choice_goes_on(chosen: Any, tmp_path: Path, after: int) -> None:
    folder, number = tmp_path / "run", len(chosen.result["choice"])
    with pytest.raises(KeyboardInterrupt, match=str(folder)):
        rlprune.search(**chosen.settings, out=folder, progress=Interrupting(STAGE.format(number), after))
    assert len(tunings(folder)) == after
    rlprune.search(**chosen.settings, out=folder)
    pd.testing.assert_frame_equal(tunings(folder), tunings(chosen.folder))
    assert json.loads((folder / "result.json").read_text())["choice"] == chosen.result["choice"]
    assert same_weights(folder, chosen.folder)


def test_without_a_fine_tuning_that_is_long_enough_the_best_one_shot_loss_decides(
    chosen: Any, searched: Any, shop: Any, tmp_path: Path
) -> None:
    plans = set()
    for epochs in (0, 2):
        result = rlprune.search(**shop.search | {"finetune_epochs": epochs}, out=tmp_path / f"{epochs}")
        assert "choice" not in result
        plans.add(kept_counts(tmp_path / f"{epochs}"))
    assert plans == {kept_counts(searched.folder)}
