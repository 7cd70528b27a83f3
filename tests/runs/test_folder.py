import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlprune.config.commands import Compare, Search
from rlprune.config.resolve import as_dict
from rlprune.errors import UserError
from rlprune.runs.folder import RunFolder, as_begun, default_folder, finished, folder_of, read_result, write_result

CONFIG = Search(model="vgg16", budget=0.3)


def test_the_same_settings_have_the_same_folder() -> None:
    settings = {key: value for key, value in as_dict(CONFIG).items() if value is not None}
    here = default_folder(CONFIG)
    assert here == default_folder(Search(**settings | {"device": "cuda", "workers": 4, "out": Path("elsewhere")}))
    others: list[dict[str, Any]] = [{"seed": 1}, {"budget": 0.4}, {"agent": "sac"}, {"lr": 0.1}, {"evaluations": 40}]
    folders = {here, *(default_folder(Search(**settings | other)) for other in others)}
    assert len(folders) == 1 + len(others)
    assert here.parts[0] == "runs"
    assert here.name.startswith("vgg16-digits-0.3-ppo-seed0-")


def test_a_setting_that_is_newer_leaves_older_runs_as_they_were(tmp_path: Path) -> None:
    """The name is that of version 0.1.0, which has no channels, and where nobody learned from the dense network."""
    assert default_folder(replace(CONFIG, distill=False)).name == "vgg16-digits-0.3-ppo-seed0-d4b682"
    grey = replace(CONFIG, channels=1)
    assert default_folder(grey) != default_folder(CONFIG)
    RunFolder(tmp_path / "run", CONFIG)
    assert "channels" not in json.loads((tmp_path / "run" / "state" / "run.json").read_text())["settings"]
    # What goes without saying may be said.
    RunFolder.check(tmp_path / "run", replace(CONFIG, channels=3))
    assert default_folder(replace(CONFIG, channels=3)) == default_folder(CONFIG)
    RunFolder.check(tmp_path / "run", CONFIG)
    with pytest.raises(UserError, match=r"channels: not set \(there\) / 1 \(now\)"):
        RunFolder.check(tmp_path / "run", grey)
    assert default_folder(replace(CONFIG, repair="bn")) == default_folder(CONFIG)
    with pytest.raises(UserError, match=r"repair: not set \(there\) / merge \(now\)"):
        RunFolder.check(tmp_path / "run", replace(CONFIG, repair="merge"))


def test_a_run_that_an_older_version_began_goes_on_as_it_was_begun(tmp_path: Path) -> None:
    """It does not mention how weights decay, and all images had the same decay then."""
    run, newer = tmp_path / "run", replace(CONFIG, distill=True, decide="channels")
    older = replace(newer, weight_decay=5e-4)
    assert as_begun(run, CONFIG) == newer
    RunFolder(run, CONFIG)
    assert as_begun(run, CONFIG) == newer
    with pytest.raises(UserError, match=r"weight_decay: not set \(there\) / 0\.0005 \(now\)"):
        RunFolder.check(run, older)
    lines = (run / "config.yaml").read_text().splitlines(keepends=True)
    (run / "config.yaml").write_text("".join(line for line in lines if not line.startswith("weight_decay")))
    assert as_begun(run, CONFIG) == older
    RunFolder.check(run, older)
    RunFolder.check(run, CONFIG)
    other = replace(newer, weight_decay=1e-4)
    assert as_begun(run, other) == other
    with pytest.raises(UserError, match=r"weight_decay: not set \(there\) / 0\.0001 \(now\)"):
        RunFolder.check(run, other)


def test_a_run_without_a_teacher_goes_on_without_one_unless_somebody_asks_for_it(tmp_path: Path) -> None:
    """Such are all of version 0.1.0 whose command did not say --distill."""
    run, told = tmp_path / "run", list[str]()
    usual = replace(CONFIG, decide="channels")
    without, taught = replace(usual, distill=False), replace(usual, distill=True)
    RunFolder(run, without)
    assert as_begun(run, CONFIG, told.append) == without
    assert told == [f"{run} was begun with --no-distill and goes on so; for another run choose another --out"]
    RunFolder.check(run, as_begun(run, CONFIG))
    assert as_begun(run, taught, told.append) == taught
    assert as_begun(run, without, told.append) == without
    assert len(told) == 1
    with pytest.raises(UserError, match=r"distill: False \(there\) / True \(now\)"):
        RunFolder.check(run, taught)


def test_a_comparison_of_the_methods_that_were_usual_once_goes_on_with_these(tmp_path: Path) -> None:
    run, told = tmp_path / "run", list[str]()
    here = Compare(model="vgg16", budget=0.3)
    once = replace(here, methods="uniform,ppo", distill=True, decide="channels")
    RunFolder(run, once)
    assert as_begun(run, here, told.append) == once
    assert told == [f"{run} was begun with --methods uniform,ppo and goes on so; for another run choose another --out"]
    # The optimum of the same curves stands beside the rule.
    names = as_begun(tmp_path / "new", here).names
    assert names[names.index("sensitivity") + 1] == "additive-dp"


@pytest.mark.parametrize("make", [Search, Compare])
def test_under_a_latency_blocks_may_go_but_in_runs_that_were_begun_without(tmp_path: Path, make: Any) -> None:
    given, told = make(model="resnet20", budget="latency=0.3"), list[str]()
    usual = as_begun(tmp_path / "new", given)
    assert usual.decisions == given.decisions == ["channels", "blocks"]
    RunFolder(tmp_path / "new", usual)
    assert as_begun(tmp_path / "new", given, told.append) == usual
    assert not told
    alone = replace(given, decide="channels")
    RunFolder(tmp_path / "old", alone)
    assert "decide" not in json.loads((tmp_path / "old" / "state" / "run.json").read_text())["settings"]
    assert as_begun(tmp_path / "old", given, told.append).decisions == ["channels"]
    assert told == [
        f"{tmp_path / 'old'} was begun with --decide channels and goes on so; for another run choose another --out"
    ]
    with pytest.raises(UserError, match="decide"):
        RunFolder.check(tmp_path / "old", usual)
    assert make(model="resnet20", budget="macs=0.3").decisions == ["channels"]


def test_a_comparison_without_a_grid_is_the_one_that_it_was_before_there_were_grids() -> None:
    """The name is that of version 0.1.0 with the methods of today."""
    here = Compare(model="vgg16", budget=0.3)
    names = [folder_of(each, "compare") for each in (here, replace(here, criteria="l1"), replace(here, criteria="l2"))]
    assert names[0].name == "compare-94c067"
    assert len(set(names)) == 3


def test_who_leaves_the_teacher_open_has_one(tmp_path: Path) -> None:
    taught, told = replace(CONFIG, distill=True, decide="channels"), list[str]()
    assert CONFIG.distills
    assert as_begun(tmp_path / "run", CONFIG, told.append) == taught
    assert default_folder(CONFIG) == default_folder(taught) != default_folder(replace(CONFIG, distill=False))
    RunFolder(tmp_path / "run", taught)
    RunFolder.check(tmp_path / "run", CONFIG)
    assert as_begun(tmp_path / "run", CONFIG, told.append) == taught
    assert not told
    with pytest.raises(UserError, match=r"distill: True \(there\) / False \(now\)"):
        RunFolder.check(tmp_path / "run", replace(CONFIG, distill=False))


def test_how_a_network_is_trained_makes_another_run_where_it_is_not_as_usual() -> None:
    usual: dict[str, Any] = {"label_smoothing": 0.0, "augment": "standard", "schedule": "usual"}
    assert default_folder(replace(CONFIG, **usual)) == default_folder(CONFIG)
    others: list[dict[str, Any]] = [
        {"weight_decay": 5e-4}, {"label_smoothing": 0.1}, {"augment": "flip"}, {"schedule": "long"},
    ]  # fmt: skip
    assert len({default_folder(CONFIG), *(default_folder(replace(CONFIG, **other)) for other in others)}) == 5


def test_the_default_folder_is_one_folder_whatever_the_names() -> None:
    config = Search(model="../nets/my net.py:make", data="folder:/data/photos/", budget="macs=0.3,params=0.4")
    assert default_folder(config).name.startswith("my_net.py_make-photos-macs=0.3_params=0.4-ppo-seed0-")
    assert len(default_folder(config).parts) == 2
    balance = Search(model="vgg16", reward="balance:macs=1")
    assert default_folder(balance).name.startswith("vgg16-digits-balance-ppo-seed0-")


def test_checking_leaves_no_trace(tmp_path: Path) -> None:
    RunFolder.check(tmp_path / "a" / "b", CONFIG)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("text")
    for path in (tmp_path / "file", tmp_path, tmp_path / "file" / "inside"):
        with pytest.raises(UserError, match=r"exists and is not a run folder|cannot write to"):
            RunFolder(path, CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_run_that_was_stopped_while_it_began_begins_again(tmp_path: Path) -> None:
    RunFolder(tmp_path, CONFIG)
    for name in ("environment.json", "command.txt", "config.yaml"):
        (tmp_path / name).unlink()
    RunFolder(tmp_path, CONFIG)
    assert (tmp_path / "config.yaml").is_file()
    with pytest.raises(UserError, match=r"agent: ppo \(there\) / td3 \(now\)"):
        RunFolder(tmp_path, Search(model="vgg16", budget=0.3, agent="td3"))


def test_a_run_that_was_killed_before_its_first_file_was_there_begins_again(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / ".4711.run.json").write_text("{")
    RunFolder(tmp_path, CONFIG)
    assert (tmp_path / "state" / "run.json").is_file()


def test_inputs_must_stay_the_same(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, CONFIG)
    run.same_inputs({"images": "abc"})
    run.same_inputs({"images": "abc"})
    with pytest.raises(UserError, match=r"images: abc \(there\) / def \(now\)"):
        run.same_inputs({"images": "def"})


@pytest.mark.parametrize("content", [{}, {"settings": 3}, {"settings": None}])
def test_a_damaged_marker(tmp_path: Path, content: dict[str, object]) -> None:
    RunFolder(tmp_path, CONFIG)
    (tmp_path / "state" / "run.json").write_text(json.dumps({"format": "rlprune-run", "version": 1, **content}))
    with pytest.raises(UserError, match=r"run\.json is damaged: it has no settings"):
        RunFolder.check(tmp_path, CONFIG)


def test_results(tmp_path: Path) -> None:
    assert not finished(tmp_path)
    with pytest.raises(UserError, match="cannot read"):
        read_result(tmp_path)
    write_result(tmp_path, {"search_loss": 0.1})
    assert finished(tmp_path)
    assert read_result(tmp_path) == {"search_loss": 0.1}
    (tmp_path / "result.json").write_text(json.dumps({"format": "rlprune-run", "version": 99}))
    with pytest.raises(UserError, match="has format version 99; this rlprune reads up to 1"):
        read_result(tmp_path)
