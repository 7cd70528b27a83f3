"""Every command is a function of checked settings."""

import inspect
from pathlib import Path
from typing import Any

import pytest

from rlprune import api
from rlprune.commands.base import command
from rlprune.config.commands import COMMANDS, Methods
from rlprune.errors import UserError
from rlprune.utils.progress import Progress


@command(Methods)
def echo(given: Methods, progress: Progress) -> dict[str, Any]:
    """Say what was given."""
    return {"kind": given.kind, "silent": type(progress) is Progress}


def test_settings_come_from_keywords_over_a_file(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("kind: agent\n")
    assert echo() == {"kind": None, "silent": True}
    assert echo(config=tmp_path / "settings.yaml") == {"kind": "agent", "silent": True}
    assert echo(config=tmp_path / "settings.yaml", kind="allocator")["kind"] == "allocator"
    assert not echo(progress=type("Loud", (Progress,), {})())["silent"]


@command(Methods)
def counting(given: Methods, progress: Progress) -> dict[str, Any]:
    """Count to two, or fail on the way."""
    progress.stage("counting", 2)
    progress.update(1)
    if given.kind:
        raise ZeroDivisionError
    progress.update(2)
    return {}


def test_a_notebook_shows_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    counting()
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("rlprune.utils.progress_display.in_notebook", lambda: True)
    monkeypatch.setattr("rlprune.utils.progress_display.find_spec", lambda name: None)
    counting()
    assert capsys.readouterr() == ("counting  0/2\ncounting  2/2  done in 0:00\n", "")
    with pytest.raises(ZeroDivisionError):
        counting(kind="agent")
    assert capsys.readouterr() == ("counting  0/2\ncounting  1/2  stopped after 0:00\n", "")
    # Whoever brings a progress decides what is shown, and ends it.
    counting(progress=Progress())
    assert capsys.readouterr() == ("", "")


def test_mistakes_are_told_before_the_command_begins() -> None:
    with pytest.raises(UserError, match="unknown setting 'kinds': did you mean 'kind'"):
        echo(kinds="agent")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_reader_is_told_what_it_takes(name: str) -> None:
    function = getattr(api, name)
    assert [*inspect.signature(function).parameters] == ["config", "progress", "settings"]
    assert f"see `rlprune.config.commands.{COMMANDS[name].__name__}`" in function.__doc__
    assert function.__doc__.count("Args:") == function.__doc__.count("Raises:") == 1
