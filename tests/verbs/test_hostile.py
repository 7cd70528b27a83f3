"""Files that would run code if they were unpickled, in every place that a user can name or a run folder has."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from workshop import flags


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (Path.touch, (self.marker,))


def test_the_bomb_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "marker")))
    assert (tmp_path / "marker").exists()


WRITERS: dict[str, Callable[[Bomb, Path], object]] = {
    "pickle": lambda bomb, path: path.write_bytes(pickle.dumps(bomb)),
    "torch": lambda bomb, path: torch.save({"state_dict": bomb}, path),
    "old torch": lambda bomb, path: torch.save(bomb, path, _use_new_zipfile_serialization=False),
}
NAMED = {
    "train --config": ["train", "--config", "BOMB"],
    "search --config": ["search", "--config", "BOMB"],
    "search --checkpoint": ["search", "--model", "resnet20", "--budget", "0.5", "--checkpoint", "BOMB"],
    "compare --checkpoint": ["compare", "--model", "resnet20", "--budget", "0.5", "--checkpoint", "BOMB"],
    "eval --checkpoint": ["eval", "--model", "resnet20", "--checkpoint", "BOMB"],
    "eval": ["eval", "BOMB"],
    "finetune": ["finetune", "BOMB"],
    "bench": ["bench", "BOMB", "--backend", "torch"],
    "report": ["report", "BOMB"],
    "export": ["export", "BOMB"],
    "replay": ["replay", "BOMB"],
    "prune --plan": ["prune", "--plan", "BOMB"],
    "prune --ratios": ["prune", "--ratios", "BOMB", "--model", "resnet20"],
    "train --data": ["train", "--model", "resnet20", "--data", "folder:BOMB"],
}
INSIDE = {
    "policy/policy.safetensors": ["replay"],
    "policy/policy.json": ["replay"],
    "policy/agent.zip": ["replay"],
    "plan.json": ["replay"],
    "config.yaml": ["replay"],
    "episodes.csv": ["report"],
    "ratios.csv": ["report"],
    "result.json": ["report"],
    "pruned/model.safetensors": ["eval"],
    "pruned/plan.json": ["eval"],
    "pruned/gates.json": ["eval"],
    "state/finetune.pt": ["finetune", "--epochs", "1"],
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize("name", NAMED)
def test_what_is_named(run: Callable[..., Any], tmp_path: Path, name: str, suffix: str, writer: str) -> None:
    WRITERS[writer](Bomb(tmp_path / "marker"), bomb := tmp_path / f"bomb{suffix}")
    ended = run(*(word.replace("BOMB", str(bomb)) for word in NAMED[name]))
    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("file", INSIDE)
def test_what_a_run_folder_holds(
    run: Callable[..., Any], searched: Any, tmp_path: Path, file: str, writer: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(searched.folder, folder)
    (folder / file).parent.mkdir(exist_ok=True)
    WRITERS[writer](Bomb(tmp_path / "marker"), folder / file)
    verb, *rest = INSIDE[file]
    ended = run(verb, folder, *rest, *(["--out", tmp_path / "out"] if verb in ("replay", "finetune") else []))
    assert ended.code in (0, 2), ended.err
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(("file", "settings"), [
    ("state/finetune.pt", {}), ("state/stages.pt", {"mode": "runtime", "rounds": 1, "rollouts": 1, "budget": 0.6})
])  # fmt: skip
def test_the_state_of_an_unfinished_run(
    run: Callable[..., Any], shop: Any, tmp_path: Path, file: str, settings: dict[str, Any], writer: str
) -> None:
    from workshop import Interrupting

    import rlprune

    given = shop.search | settings | {"out": tmp_path / "run"}
    stage = "fine-tuning" if not settings else "runtime agent, round 1 of 1"
    with pytest.raises(KeyboardInterrupt):
        rlprune.search(**given, progress=Interrupting(stage, 1))
    WRITERS[writer](Bomb(tmp_path / "marker"), tmp_path / "run" / file)
    ended = run("search", *flags(given))
    assert ended.code == 2
    assert "remove it to start over" in " ".join(ended.err.split())
    assert not (tmp_path / "marker").exists()
