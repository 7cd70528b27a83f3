import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from rlprune import __version__
from rlprune.cli.main import ABOUT, main
from rlprune.config.commands import COMMANDS
from rlprune.config.resolve import resolve
from rlprune.errors import UserError

HEAVY = ("torch", "torchvision", "numpy", "pandas", "rich", "altair", "vl_convert", "sklearn", "stable_baselines3")


class Ended(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    def run(*args: str) -> Ended:
        with pytest.raises(SystemExit) as ended:
            main(args, prog_name="rlprune")
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """Puts stand-ins in the place of the commands' functions; they record what they are called with."""

    def stand_in(result: object, does: Callable[[Any], object] = lambda progress: None) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = []

        def command(*, progress: Any, **settings: Any) -> object:
            calls.append(settings)
            does(progress)
            return result

        monkeypatch.setitem(sys.modules, "rlprune.api", SimpleNamespace(**dict.fromkeys(COMMANDS, command)))  # type: ignore[arg-type]
        show = SimpleNamespace(show=lambda command, result, console: console.print(f"{command} gave {result}"))
        monkeypatch.setitem(sys.modules, "rlprune.cli.output", show)  # type: ignore[arg-type]
        return calls

    return stand_in


def raising(error: BaseException) -> Callable[[Any], object]:
    def does(progress: Any) -> object:
        raise error

    return does


@pytest.mark.parametrize("command", COMMANDS)
def test_help_tells_every_setting_with_its_default(run: Callable[..., Ended], command: str) -> None:
    code, out, err = run(command, "--help")
    text = " ".join(out.split())
    assert (code, err) == (0, "")
    for entry in fields(COMMANDS[command]):
        assert (entry.metadata["positional"] or f"--{entry.name.replace('_', '-')}") in text
        assert entry.metadata["help"] in text
        if entry.default is not None and entry.default is not MISSING:
            assert f"[default: {'no' if entry.default is False else entry.default}]" in text
    assert "--config FILE" in text
    assert "--json" in text
    assert text.count(f"rlprune {command} ") >= 3  # the usage line and at least two examples


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_in_the_help_are_valid(
    run: Callable[..., Ended], api: Callable[..., list[dict[str, Any]]], command: str
) -> None:
    calls = api({})
    for example in ABOUT[command][1:]:
        assert run(*example.split()[1:]).code == 0
        given = calls[-1]
        if "config" not in given:
            resolve(COMMANDS[command], given)


def test_help_teaches_what_a_budget_is(run: Callable[..., Ended]) -> None:
    text = " ".join(run("--help").out.split())
    assert "KEPT" in text
    assert "1 MAC = one multiply-accumulate" in text
    assert all(command in text for command in COMMANDS)


def test_version(run: Callable[..., Ended]) -> None:
    assert run("--version") == (0, f"rlprune {__version__}\n", "")


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom rlprune.cli.main import main\n"
        "try: main(['search', '--help'])\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    ended = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=Path(__file__).parent, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "[]\n")


def test_only_what_is_given_is_passed_on(run: Callable[..., Ended], api: Callable[..., list[dict[str, Any]]]) -> None:
    calls = api({})
    run("search", "--model", "vgg16", "--budget", "0.3", "--round-to", "8")
    run("search", "--config", "a.yaml", "--download", "--json")
    run("search", "--no-download", "--no-distill")
    run("replay", "--distill")
    run("finetune", "runs/a", "--epochs", "300")
    run("eval")
    assert calls == [
        {"model": "vgg16", "budget": "0.3", "round_to": "8"},
        {"config": Path("a.yaml"), "download": True},
        {"download": False, "distill": False},
        {"distill": True},
        {"source": "runs/a", "epochs": "300"},
        {},
    ]


def test_results_are_shown_by_the_report(run: Callable[..., Ended], api: Callable[..., list[dict[str, Any]]]) -> None:
    api({"accuracy": 0.5})
    assert run("eval", "runs/a") == (0, "eval gave {'accuracy': 0.5}\n", "")


def test_json_is_all_there_is_on_standard_output(
    run: Callable[..., Ended], api: Callable[..., list[dict[str, Any]]]
) -> None:
    def chatty(progress: Any) -> None:
        print("a library speaks")
        progress.stage("search", 2)
        progress.note("a note")

    result = {
        "loss": np.float32(0.5),
        "best": np.float64(0.25),
        "counts": np.array([1, 2]),
        "kept": torch.tensor(3),
        "worst": float("nan"),
        "done": np.bool_(True),
        "out": Path("runs/a"),
        "nested": ({4: None},),
        "text": "a",
    }
    api(result, chatty)
    code, out, err = run("search", "--json")
    assert code == 0
    assert json.loads(out, parse_constant=pytest.fail) == {
        "loss": 0.5,
        "best": 0.25,
        "counts": [1, 2],
        "kept": 3,
        "worst": None,
        "done": True,
        "out": "runs/a",
        "nested": [{"4": None}],
        "text": "a",
    }
    assert "a library speaks" in err
    assert "a note" in err


def test_export_prints_its_table(run: Callable[..., Ended], api: Callable[..., list[dict[str, Any]]]) -> None:
    api({"text": "group,ratio\nconv1,0.5\n"})
    assert run("export", "runs/a") == (0, "group,ratio\nconv1,0.5\n", "")
    assert json.loads(run("export", "runs/a", "--json").out) == {"text": "group,ratio\nconv1,0.5\n"}


def test_export_to_a_file_is_shown_by_the_report(
    run: Callable[..., Ended], api: Callable[..., list[dict[str, Any]]]
) -> None:
    api({"out": "a.csv"})
    assert run("export", "runs/a", "--out", "a.csv").out == "export gave {'out': 'a.csv'}\n"


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_mistake_of_the_user_is_one_message(
    run: Callable[..., Ended], api: Callable[..., list[dict[str, Any]]], flags: tuple[str, ...]
) -> None:
    api({}, raising(UserError("unknown model 'vg16': did you mean 'vgg16'?")))
    assert run("search", *flags) == (2, "", "rlprune: error: unknown model 'vg16': did you mean 'vgg16'?\n")


def test_an_interrupt_is_one_line(run: Callable[..., Ended], api: Callable[..., list[dict[str, Any]]]) -> None:
    api({}, raising(KeyboardInterrupt()))
    assert run("search") == (130, "", "rlprune: interrupted\n")
    api({}, raising(KeyboardInterrupt("what was found so far is in runs/a")))
    assert run("search") == (130, "", "rlprune: interrupted: what was found so far is in runs/a\n")


def test_a_bug_keeps_its_traceback(api: Callable[..., list[dict[str, Any]]]) -> None:
    api({}, raising(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main(["search"], prog_name="rlprune")


def test_near_matches(run: Callable[..., Ended]) -> None:
    code, out, err = run("serch", "--model", "vgg16")
    assert (code, out) == (2, "")
    assert err.startswith("rlprune: error: unknown command 'serch': did you mean 'search'?")
    code, out, err = run("search", "--evalutions", "3")
    assert (code, out) == (2, "")
    assert "--evaluations" in err
