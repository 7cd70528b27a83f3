"""A network that trains in a second, images of noise, a dense checkpoint and a finished run, shared by all commands."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from workshop import NET, macs, write_waves

import rlprune
from rlprune.cli.main import main

EVALUATIONS = 28
"""10 for the curves of the three groups, 18 for plans, in two rounds of the agent."""

LATENCY = {
    "backend": "torch",
    "batch": 1,
    "threads": 1,
    "device": "cpu",
    "dense_ms": 3.0,
    "pruned_ms": 1.5,
    "noise": "",
}


class Ended(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="session", autouse=True)
def _small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A short imagination, a cache of their own, and no clock in what two runs have in common."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rlprune.agents.search.rounds.WALKS", 16)
        patch.setattr("rlprune.agents.search.rounds.ROLLOUTS", 1)
        cache = tmp_path_factory.mktemp("cache")
        patch.setattr("rlprune.workloads.dense.cache_folder", lambda: cache)
        patch.setattr("rlprune.latency.lookup.cache_folder", lambda: cache)
        for place in ("rlprune.pipeline.recover", "rlprune.commands.prune", "rlprune.pipeline.gated_results"):
            patch.setattr(f"{place}.quick_latency", lambda *networks: dict(LATENCY))
        yield


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What every run needs: `data`, `model`, a dense `checkpoint`, and `settings` that name them."""
    root = tmp_path_factory.mktemp("shop")
    write_waves(root / "waves")
    (root / "net.py").write_text(NET)
    settings: dict[str, Any] = {"model": f"{root / 'net.py'}:make", "data": f"folder:{root / 'waves'}", "device": "cpu"}
    settings |= {"search_images": 30, "calibration_images": 24}
    checkpoint = root / "dense.safetensors"
    rlprune.train(**settings, epochs=6, out=checkpoint)
    search = settings | {"checkpoint": checkpoint, "budget": 0.15, "evaluations": EVALUATIONS, "finetune_epochs": 2}
    return SimpleNamespace(root=root, checkpoint=checkpoint, settings=settings, search=search)


@pytest.fixture(scope="session")
def searched(shop: Any) -> Any:
    """A finished run, in `folder`, and its `result`."""
    folder = shop.root / "searched"
    return SimpleNamespace(folder=folder, result=rlprune.search(**shop.search, out=folder))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    def run(*args: object) -> Ended:
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args], prog_name="rlprune")
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def run_json(run: Callable[..., Ended]) -> Callable[..., dict[str, Any]]:
    """Runs a command that must succeed; returns the one JSON object that is all of its standard output."""

    def run_json(*args: object) -> dict[str, Any]:
        code, out, err = run(*args, "--json")
        assert code == 0, err
        return json.loads(out, parse_constant=pytest.fail)

    return run_json


@pytest.fixture(scope="session")
def kept_macs(shop: Any) -> Callable[[Path], float]:
    """The MACs of the pruned network in a folder as a fraction of the dense network's."""
    names: dict[str, Any] = {}
    exec(NET, names)
    dense = macs(names["make"](3))
    return lambda folder: macs(rlprune.load(folder)) / dense
