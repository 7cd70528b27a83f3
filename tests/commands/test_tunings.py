"""`search --tunings` and `--time`: plans that are fine-tuned briefly, too."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from workshop import Interrupting, episodes, kept_counts, same_weights

import rlprune
from rlprune.errors import UserError
from rlprune.utils.progress import Progress

TUNINGS = 8


class Notes(Progress):
    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)


@pytest.fixture(scope="module", autouse=True)
def _brief() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for name, size in {"PERTURBED": 2, "BEST": 1, "PICKS": 2}.items():
            patch.setattr(f"rlprune.agents.search.multi_fidelity.{name}", size)
        yield


@pytest.fixture(scope="module")
def tuned(shop: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder, settings = (
        tmp_path_factory.mktemp("tuned") / "run",
        shop.search | {"tunings": TUNINGS, "finetune_epochs": 4},
    )
    return SimpleNamespace(folder=folder, settings=settings, result=rlprune.search(**settings, out=folder))


def tunings(folder: Path) -> list[dict[str, str]]:
    with (folder / "tunings.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def test_the_plan_is_one_that_was_tuned(tuned: Any, shop: Any) -> None:
    rows = tunings(tuned.folder)
    # Half as many plans are tuned four times as long; of 120 images a fifth is held back.
    stages = [row["stage"] for row in rows]
    assert stages == ["96 images"] * TUNINGS + ["384 images"] * (TUNINGS // 2)
    assert len(rows) == tuned.result["tunings"]
    assert len({(row["stage"], row["counts"]) for row in rows}) == len(rows)
    losses = {row["counts"]: float(row["loss"]) for row in rows[TUNINGS:]}
    assert tuned.result["tuned_loss"] == losses[kept_counts(tuned.folder)]
    assert tuned.result["base_tuned_loss"] == float(rows[TUNINGS]["loss"]) >= tuned.result["tuned_loss"]
    assert rows[0]["counts"] == rows[TUNINGS]["counts"]
    assert tuned.result["tuned_on"] == "384 images"
    assert all(float(row["macs_ratio"]) <= 0.15 for row in rows)
    # The one-shot loss of the same plan, which may have been measured for this report alone.
    known = {row["counts"]: float(row["loss"]) for row in episodes(tuned.folder)}
    assert tuned.result["search_loss"] == known[kept_counts(tuned.folder)]
    assert tuned.result["evaluations"] == len(known) <= shop.search["evaluations"] + 1


@pytest.mark.parametrize(
    ("stage", "after"), [("searching", 20), ("tuning plans on 96 images", 3), ("tuning plans on 384 images", 1)]
)
def test_an_interrupted_one_ends_like_one_that_was_not(tuned: Any, tmp_path: Path, stage: str, after: int) -> None:
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt, match=str(folder)):
        rlprune.search(**tuned.settings, out=folder, progress=Interrupting(stage, after))
    assert (folder / "plan.json").is_file()
    result = rlprune.search(**tuned.settings, out=folder)
    aside = {"seconds": 0, "run": "", "plan": ""}
    assert result | aside == tuned.result | aside
    assert (tunings(folder), episodes(folder)) == (tunings(tuned.folder), episodes(tuned.folder))
    assert same_weights(folder, tuned.folder)


@pytest.mark.parametrize("told", [True, False])
def test_where_losses_do_not_tell_base_plans_apart_brief_tunings_do(
    shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    """Of 120 images 96 are learnt from; no more plans are tuned where that is not asked for."""
    monkeypatch.setattr("rlprune.agents.search.base_choice.tells", lambda *given: told)
    progress = Notes()
    result = rlprune.search(**shop.search, out=tmp_path / "run", progress=progress)
    assert "tunings" not in result
    measured = [row for row in episodes(tmp_path / "run") if row["stage"] == "search"][:2]
    home = json.loads((tmp_path / "run" / "policy" / "policy.json").read_text())["homes"][0]
    lines = [note for note in progress.told if "base plans" in note]
    if told:
        losses = [float(row["loss"]) for row in measured]
        assert not (tmp_path / "run" / "tunings.csv").exists()
        assert not lines
    else:
        rows = tunings(tmp_path / "run")
        losses = [float(row["loss"]) for row in rows]
        assert [row["counts"] for row in rows] == [row["counts"] for row in measured]
        assert {row["stage"] for row in rows} == {"96 images"}
        lowest = np.minimum.accumulate(losses)
        assert [float(row["best_loss"]) for row in rows] == pytest.approx(lowest, abs=1e-6)
        assert len(lines) == 1
        assert all(f"{float(row['loss']):.3f}" in lines[0] for row in [*measured, *rows])
    assert home["base"] == ("rule" if losses[0] <= losses[1] else "uniform")


def test_an_interrupted_choice_of_the_base_plan_goes_on(
    shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlprune.agents.search.base_choice.tells", lambda *given: False)
    one, other = tmp_path / "one", tmp_path / "other"
    with pytest.raises(KeyboardInterrupt):
        rlprune.search(**shop.search, out=one, progress=Interrupting("tuning base plans on 96 images", 1))
    assert len(tunings(one)) == 1
    for folder in (one, other):
        rlprune.search(**shop.search, out=folder)
    assert (tunings(one), episodes(one)) == (tunings(other), episodes(other))
    assert same_weights(one, other)


def test_it_is_told_what_the_dense_network_may_have_seen(shop: Any, tuned: Any, tmp_path: Path) -> None:
    """A checkpoint may have seen all; what is trained here has not seen the fifth of 120 images that is held back."""
    assert (tuned.result["held_images"], tuned.result["held_from_dense"]) == (24, False)
    told: dict[str, list[str]] = {}
    more: dict[str, Any]
    for name, more in {"given": {}, "trained": {"checkpoint": None, "train_epochs": 1}}.items():
        notes = Notes()
        settings = shop.search | {"time": "0.01s", "finetune_epochs": 0} | more
        result = rlprune.search(**settings, out=tmp_path / name, progress=notes)
        told[name] = [text for text in notes.told if text.startswith("the dense network was not trained here")]
        assert (result["held_images"], result["held_from_dense"]) == (24, name == "trained")
    assert (len(told["given"]), len(told["trained"])) == (1, 0)


def test_time_ends_the_search(shop: Any, tmp_path: Path) -> None:
    """So short a time leaves the first plans, and the tuning of the base plans."""
    result = rlprune.search(**shop.search | {"time": "0.01s"}, out=tmp_path / "run")
    assert result["tunings"] == 2
    assert result["evaluations"] < shop.search["evaluations"]
    assert result["tuned_loss"] == min(float(row["loss"]) for row in tunings(tmp_path / "run"))


def test_an_interrupted_one_with_a_time_limit_takes_up_what_it_knows(tuned: Any, tmp_path: Path) -> None:
    """The time is long over when it continues; what was measured before still counts, and nothing new is."""
    folder, settings = tmp_path / "run", tuned.settings | {"time": "1h"}
    with pytest.raises(KeyboardInterrupt):
        rlprune.search(**settings, out=folder, progress=Interrupting("tuning plans on 96 images", 5))
    before = len(tunings(folder))
    for name in ("episodes.csv", "tunings.csv"):
        lines = (folder / name).read_text().splitlines()
        head = lines[0].split(",").index("seconds")
        late = [",".join([*row.split(",")[:head], "99999", *row.split(",")[head + 1 :]]) for row in lines[1:]]
        (folder / name).write_text("\n".join([lines[0], *late]) + "\n")
    result = rlprune.search(**settings, out=folder)
    # The round that was under way is measured to its end, and the base plan and the best are tuned for longer, too.
    assert before <= result["tunings"] <= before + 3
    assert [row["stage"] for row in tunings(folder)].count("384 images") == 2
    assert tunings(folder)[:before] == tunings(tuned.folder)[:before]
    assert json.loads((folder / "result.json").read_text())["tunings"] == result["tunings"]


def test_mistakes(shop: Any, tmp_path: Path) -> None:
    for time, message in (
        ("10", "its unit"),
        ("-3m", "above 0"),
        ("soon", "such as 90s, 10m"),
        ("infh", "above 0"),
    ):
        with pytest.raises(UserError, match=message):
            rlprune.search(**shop.search | {"time": time}, out=tmp_path / "run")
    with pytest.raises(UserError, match="a range: --tunings and --time work under a single budget"):
        rlprune.search(**shop.search | {"budget": "0.2:0.8", "tunings": 8}, out=tmp_path / "run")
    with pytest.raises(UserError, match="at least 4"):
        rlprune.search(**shop.search | {"tunings": 3}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
