import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from workshop import Interrupting, episodes, flags, kept_counts, same_weights

import rlprune
from rlprune.errors import UserError
from rlprune.tasks import classification
from rlprune.utils.progress import Progress


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Everything that is really evaluated."""
    calls: list[object] = []
    measure = classification.calibrated

    def counted(logits: torch.Tensor, labels: torch.Tensor) -> classification.Evaluation:
        calls.append(None)
        return measure(logits, labels)

    monkeypatch.setattr("rlprune.tasks.classification.calibrated", counted)
    return calls


def assert_same(folder: Path, searched: Any) -> None:
    assert episodes(folder) == episodes(searched.folder)
    assert (folder / "plan.json").read_text() == (searched.folder / "plan.json").read_text()
    assert same_weights(folder, searched.folder)


@pytest.mark.parametrize("after", [4, 12, 20])
@pytest.mark.parametrize("torn", [False, True])
def test_an_interrupted_search_ends_like_one_that_was_not(
    shop: Any,
    searched: Any,
    measured: list[object],
    tmp_path: Path,
    after: int,
    torn: bool,
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt, match=str(folder)):
        rlprune.search(**shop.search, out=folder, progress=Interrupting("searching", after))
    rows = episodes(folder)
    assert len(measured) == len(rows) == after
    if after > 10:
        best = min(rows[10:], key=lambda row: float(row["loss"]))
        assert best["counts"] == kept_counts(folder)
    else:
        assert not (folder / "plan.json").exists()
    log = folder / "episodes.csv"
    if torn:
        log.write_bytes(log.read_bytes()[:-9])
    result = rlprune.search(**shop.search, out=folder)
    assert len(measured) == shop.search["evaluations"] + torn
    assert result | {"seconds": 0, "run": "", "plan": ""} == searched.result | {"seconds": 0, "run": "", "plan": ""}
    assert_same(folder, searched)


def test_a_search_that_was_killed_before_its_page_was_written_writes_it(
    shop: Any, searched: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(searched.folder, folder)
    (folder / "report.html").unlink()
    (folder / "state" / "owner.json").write_text("{}")
    (folder / ".4711.report.html").write_text("<html>")
    rlprune.search(**shop.search, out=folder)
    assert (folder / "report.html").read_text().endswith("</html>")
    assert not [path for path in folder.rglob("*") if path.name in ("owner.json", ".4711.report.html")]


def test_a_log_with_half_a_header_starts_over(shop: Any, searched: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        rlprune.search(**shop.search, out=folder, progress=Interrupting("searching", 1))
    (folder / "episodes.csv").write_text("evaluation,sta")
    rlprune.search(**shop.search, out=folder)
    assert_same(folder, searched)


def test_an_interrupted_fine_tuning_continues(
    shop: Any, searched: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    monkeypatch.setattr("rlprune.runs.folder.today", lambda: "2001-02-03")
    with pytest.raises(KeyboardInterrupt, match=str(folder)):
        rlprune.search(**shop.search, out=folder, progress=Interrupting("fine-tuning", 10))
    assert kept_counts(folder) == kept_counts(searched.folder)
    assert not (folder / "pruned").exists()
    first: dict[str, int] = {}

    class Watching(Progress):
        def stage(self, name: str, total: int | None = None, done: int = 0) -> None:
            first[name] = done

    # It goes on the next day, which changes nothing: a run asks for the date once.
    for place in ("runs.folder", "artifacts.pruned"):
        monkeypatch.setattr(f"rlprune.{place}.today", lambda: "2001-02-04")
    # Seven steps an epoch: the first epoch is not trained again.
    rlprune.search(**shop.search, out=folder, progress=Watching())
    assert 0 < first["fine-tuning"] < 10
    assert_same(folder, searched)
    assert not (folder / "state" / "finetune.pt").exists()
    assert "- date: 2001-02-03" in (folder / "pruned" / "README.md").read_text()


def test_an_interrupted_training_of_the_dense_network_continues(
    shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {key: value for key, value in shop.search.items() if key != "checkpoint"}
    settings |= {"train_epochs": 2, "finetune_epochs": 0, "seed": 3}
    caches = tmp_path / "one", tmp_path / "other"
    for cache in caches:
        monkeypatch.setattr("rlprune.workloads.dense.cache_folder", lambda cache=cache: cache)
        if cache == caches[1]:
            stop = Interrupting("training the dense network", 12)
            with pytest.raises(KeyboardInterrupt):
                rlprune.search(**settings, out=tmp_path / "other-run", progress=stop)
            assert not (tmp_path / "other-run").exists()
        rlprune.search(**settings, out=tmp_path / f"{cache.name}-run")
        assert [path.suffix for path in (cache / "dense").iterdir()] == [".safetensors"]
    assert episodes(tmp_path / "one-run") == episodes(tmp_path / "other-run")


def test_a_finished_run_returns_its_result_at_once(shop: Any, searched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlprune.pipeline.search.open_workload", pytest.fail)
    assert rlprune.search(**shop.search, out=searched.folder) == searched.result
    # Where and how fast it is computed does not make it another run.
    assert rlprune.search(**shop.search | {"device": "auto", "workers": 3}, out=searched.folder) == searched.result
    with pytest.raises(UserError, match="belongs to a different run") as raised:
        rlprune.search(**shop.search | {"budget": 0.5, "agent": "sac"}, out=searched.folder)
    assert "budget: 0.15 (there) / 0.5 (now)" in str(raised.value)
    assert "agent: ppo (there) / sac (now)" in str(raised.value)
    assert "seed" not in str(raised.value)


def test_an_unfinished_run_continues_elsewhere_but_not_as_another(shop: Any, searched: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        rlprune.search(**shop.search, out=folder, progress=Interrupting("searching", 12))
    with pytest.raises(UserError, match=r"seed: 0 \(there\) / 1 \(now\)"):
        rlprune.search(**shop.search, seed=1, out=folder)
    folder = folder.rename(tmp_path / "moved")
    rlprune.search(**shop.search | {"workers": 1}, out=folder)
    assert_same(folder, searched)


def test_other_weights_under_the_same_name_are_noticed(shop: Any, tmp_path: Path) -> None:
    checkpoint = tmp_path / "dense.safetensors"
    checkpoint.write_bytes(shop.checkpoint.read_bytes())
    settings = shop.search | {"checkpoint": checkpoint}
    with pytest.raises(KeyboardInterrupt):
        rlprune.search(**settings, out=tmp_path / "run", progress=Interrupting("searching", 12))
    rlprune.train(**shop.settings, epochs=0, out=checkpoint)
    with pytest.raises(UserError, match=r"begun with other inputs.*\n  dense weights: "):
        rlprune.search(**settings, out=tmp_path / "run")


def test_the_settings_of_a_run_are_a_config_below_the_flags(
    run: Callable[..., Any], shop: Any, searched: Any, tmp_path: Path
) -> None:
    config = searched.folder / "config.yaml"
    assert run("search", "--config", config, "--out", searched.folder).code == 0
    ended = run("search", "--config", config, "--out", searched.folder, "--evaluations", "40")
    assert (ended.code, ended.out) == (2, "")
    assert f"evaluations: {shop.search['evaluations']} (there) / 40 (now)" in ended.err
    assert yaml.safe_load(config.read_text())["evaluations"] == shop.search["evaluations"]


def test_a_folder_of_something_else_is_left_alone(shop: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="exists and is not a run folder: choose another --out"):
        rlprune.search(**shop.search, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send")
def test_a_real_interrupt(shop: Any, tmp_path: Path) -> None:
    settings = shop.search | {"model_args": "width=32", "evaluations": 3000, "out": tmp_path / "run"}
    rlprune.train(**shop.settings, model_args="width=32", epochs=0, out=tmp_path / "wide.safetensors")
    settings["checkpoint"] = tmp_path / "wide.safetensors"
    # Shells start their background jobs with interrupts ignored, which children inherit.
    script = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    script += "from rlprune.cli.main import main; main(prog_name='rlprune')"
    process = subprocess.Popen(
        [sys.executable, "-c", script, "search", *flags(settings)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "run" / "episodes.csv"
    while process.poll() is None and not (log.is_file() and log.read_text().count("\n") > 15):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    where = f"what was found so far is in {tmp_path / 'run'}"
    assert err.endswith(f"rlprune: interrupted: {where}; the same command continues\n")
    assert "Traceback" not in err
    rows = episodes(tmp_path / "run")
    best = min((row for row in rows if row["stage"] == "search"), key=lambda row: float(row["loss"]))
    assert kept_counts(tmp_path / "run") == best["counts"]
