"""The clock is left out: what runs where, and what is told of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rlprune.errors import UserError
from rlprune.latency import backends as backend
from rlprune.latency.backends import Backend, make_run
from rlprune.latency.timing import build, time_networks
from rlprune.models.registry import rebuild_model


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Measures nothing; remembers what was asked for."""
    asked: list[dict[str, Any]] = []

    def answer(function: object, **arguments: Any) -> list[list[float]]:
        assert function is time_networks
        asked.append(arguments)
        if arguments["backend"]["backend"] == "compile":
            raise UserError("torch.compile does not work here: no compiler")
        again = 2.0 if arguments["backend"]["batch"] == 64 else 4.0
        return [[4.0, 1.0, again]] * 9 if len(arguments["subjects"]) == 2 else [[4.0, again]] * 9

    monkeypatch.setattr("rlprune.commands.bench.run_isolated", answer)
    return asked


def test_a_run_is_timed_beside_its_dense_network(
    run: Callable[..., Any], searched: Any, quick: list[dict[str, Any]]
) -> None:
    code, out, err = run(
        "bench", searched.folder, "--backend", "torch,compile", "--batch", "1,64", "--threads", "3", "--device", "cpu"
    )
    assert code == 0, err
    assert [(ask["backend"]["backend"], ask["backend"]["batch"], ask["threads"]) for ask in quick] == [
        ("torch", 1, 3), ("torch", 64, 3), ("compile", 1, 3), ("compile", 64, 3),
    ]  # fmt: skip
    dense, pruned = (build(subject)[0] for subject in quick[0]["subjects"])
    channels = {row["group"]: (row["channels"], row["kept"]) for row in searched.result["table"]}
    assert (dense.stem.out_channels, pruned.stem.out_channels) == channels["stem"]
    assert "4.00 ms" in out
    assert "4.00 ×" in out
    assert "torch, batch 64: this machine is too noisy to tell: the same network twice differs by 100 %" in out
    assert "compile, batch 1: torch.compile does not work here: no compiler" in out
    stored = json.loads((searched.folder / "bench.json").read_text())
    (searched.folder / "bench.json").unlink()
    assert [row["refused"] is None for row in stored["results"]] == [True, True, False, False]
    assert stored["results"][0]["speed_up"] == 4.0
    assert stored["macs_ratio"] == searched.result["macs_ratio"]


def test_a_model_alone(run_json: Callable[..., Any], quick: list[dict[str, Any]], tmp_path: Path) -> None:
    words = ["--model", "resnet20", "--model-args", "width=0.5", "--backend", "torch"]
    result = run_json("bench", *words, "--device", "cpu", "--image-size", "24")
    module, shape = build(quick[0]["subjects"][0])
    assert (shape, module.conv1.out_channels, len(quick[0]["subjects"])) == ((3, 24, 24), 8, 1)
    assert result["results"][0]["dense"] == {"median": 4.0, "p95": 4.0}
    assert result["path"] is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--backend", "onnxruntim"], "unknown backend 'onnxruntim': did you mean 'onnxruntime'?"),
        (["--batch", "1,x"], "--batch 1,x: expected numbers of images such as 1,64"),
        (["--batch", "0"], "--batch 0: expected numbers"),
        (["--threads", "0"], "threads is 0: expected at least 1"),
        (["--model", "vgg16"], "expected either a run folder or a pruned folder, or --model, and not both"),
        (["--backend", "compile"], "torch.compile does not work here: no compiler"),
    ],
)
def test_mistakes(
    run: Callable[..., Any], searched: Any, quick: list[dict[str, Any]], words: list[str], said: str
) -> None:
    code, out, err = run("bench", searched.folder, *words)
    assert (code, out) == (2, "")
    assert said in err
    assert not (searched.folder / "bench.json").exists()


NETWORK = {"model": "resnet20", "args": {"width": 0.25}, "classes": 4, "image_size": 16}


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_backends_run_the_network(backend: str) -> None:
    """What a run returns is what the network says of the images that it is given."""
    torch.manual_seed(0)
    module = rebuild_model(NETWORK).eval()
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found: Any = make_run(module, (3, 16, 16), Backend(backend, 3))()
    logits = found if backend == "torch" else torch.from_numpy(found[0])
    torch.testing.assert_close(logits, module(images).detach(), rtol=1e-4, atol=1e-4)


def test_a_compiler_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(module: object) -> object:
        def fail(images: object) -> object:
            raise RuntimeError("\n  no compiler here\nmore")

        return fail

    monkeypatch.setattr(backend.torch, "compile", broken)
    with pytest.raises(UserError, match=r"^torch\.compile does not work here: no compiler here$"):
        make_run(rebuild_model(NETWORK).eval(), (3, 16, 16), Backend("compile"))
