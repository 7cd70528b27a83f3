import io
import sys
import types
from collections.abc import Callable

import pytest
from rich.console import Console

from rlprune.utils.progress import Progress
from rlprune.utils.progress_display import (
    LineProgress,
    LiveProgress,
    default_progress,
    duration,
    in_notebook,
    make_progress,
)

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def live() -> tuple[LiveProgress, Console, Terminal, Clock]:
    stream, clock = Terminal(), Clock()
    console = Console(file=stream, force_terminal=True, width=100, legacy_windows=False, color_system=None)
    return LiveProgress(console, clock), console, stream, clock


def drawn(progress: LiveProgress) -> str:
    """What the live line shows now, without the control codes."""
    console = Console(file=io.StringIO(), width=100, color_system=None)
    with console.capture() as captured:
        console.print(progress._render())
    return "\n".join(line.rstrip() for line in captured.get().splitlines()).rstrip()


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0, "0:00"), (59.6, "1:00"), (245, "4:05"), (3600, "1:00:00"), (36245, "10:04:05")]
)
def test_durations(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_the_base_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        progress.stage("search", 3)
        progress.update(1, best="loss 1")
        progress.note("a note")
    assert capsys.readouterr() == ("", "")


def test_lines_begin_and_end_every_stage_and_are_rare_between() -> None:
    stream, clock = io.StringIO(), Clock()
    with LineProgress(stream, clock) as progress:
        progress.stage("sensitivity")
        clock.now += 31
        progress.stage("search", 80)
        for done in range(1, 81):
            clock.now += 0.125
            progress.update(done, best=f"loss {done}", so_far="30.0 % MACs")
    assert stream.getvalue().splitlines() == [
        "sensitivity",
        "sensitivity  done in 0:31",
        "search  0/80",
        "search  40/80  best loss 40 · so far 30.0 % MACs  0:05  0:05 left",
        "search  80/80  best loss 80 · so far 30.0 % MACs  done in 0:10",
    ]


def test_time_left_counts_only_the_steps_of_this_run() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = LineProgress(stream, clock)
    progress.stage("search", 300, done=200)
    clock.now += 10
    progress.update(210)
    assert stream.getvalue().splitlines() == ["search  200/300", "search  210/300  0:10  1:30 left"]


def test_lines_tell_that_a_stage_did_not_finish() -> None:
    stream, clock = io.StringIO(), Clock()

    def search() -> None:
        with LineProgress(stream, clock) as progress:
            progress.stage("search", 3)
            progress.update(1)
            progress.note("a note")
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  (no message of ours)
        search()
    assert stream.getvalue().splitlines() == ["search  0/3", "a note", "search  1/3  stopped after 0:00"]


@pytest.mark.parametrize("make", [lambda: LineProgress(io.StringIO()), lambda: live()[0]])
def test_reports_out_of_order_do_no_harm(make: Callable[[], Progress]) -> None:
    progress = make()
    progress.update(1)
    progress.note("before any stage")
    progress.stage("nothing to do", 0)
    progress.update(0)
    progress.close()
    progress.close()
    progress.update(2)
    progress.stage("again")
    progress.close()


def test_the_live_line() -> None:
    progress, _, _, clock = live()
    with progress:
        progress.stage("search", 300)
        assert drawn(progress).split() == ["●", "search", "0/300", "0:00"]
        clock.now += 45
        progress.update(120, best="loss 1.83", kept="30.0 % MACs")
        first, second = drawn(progress).splitlines()
        assert first.startswith("● search ━")
        assert first.count("━") == 13  # of 33, a third of the terminal; without colours the rest is blank
        assert first.endswith("120/300 0:45 · 1:08 left")  # 45 s / 120 steps x 180 steps = 67.5 s
        assert second == "  best loss 1.83 · kept 30.0 % MACs"


@pytest.mark.parametrize("width", [50, 80, 200])
def test_numbers_stay_whole_and_the_bar_takes_a_share_of_the_width(width: int) -> None:
    clock = Clock()
    console = Console(file=Terminal(), force_terminal=True, width=width, legacy_windows=False, color_system=None)
    with LiveProgress(console, clock) as progress:
        progress.stage("fine-tuning", 1000)
        clock.now += 3600
        progress.update(500)
        paper = Console(file=io.StringIO(), width=width, color_system=None)
        with paper.capture() as captured:
            paper.print(progress._render())
    line = captured.get().splitlines()[0].rstrip()
    assert " 500/1000 " in line
    assert len(line) <= width
    if width > 50:
        assert line.endswith(" 1:00:00 · 1:00:00 left")
        assert abs(line.count("━") - min(width // 3, 60) / 2) <= 1


def test_the_live_line_fits_a_narrow_terminal() -> None:
    progress, *_ = live()
    with progress:
        progress.stage("search", 300)
        progress.update(1, best="loss 1.83 " * 30)
        narrow = Console(file=io.StringIO(), width=40, color_system=None)
        with narrow.capture() as captured:
            narrow.print(progress._render())
    assert max(map(len, captured.get().splitlines())) <= 40


def test_finished_stages_and_notes_stay_above() -> None:
    progress, _, stream, clock = live()
    with progress:
        progress.stage("dense network", 12)
        clock.now += 61
        progress.update(12, accuracy="81 %")
        progress.note("[a note] 5/5")
        progress.stage("search")
    shown = stream.getvalue()
    assert "✓ dense network  12/12  1:01  accuracy 81 %" in shown
    assert "[a note] 5/5" in shown
    assert "✓ search  0:00" in shown


def test_the_terminal_is_restored_after_an_exception() -> None:
    progress, _, stream, _ = live()
    before = sys.stdout, sys.stderr

    def search() -> None:
        with progress:
            progress.stage("search", 3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search()
    shown = stream.getvalue()
    assert shown.count(HIDE) == shown.count(SHOW) == 1
    assert shown.index(HIDE) < shown.index(SHOW) < shown.index("✗ search  0/3")
    assert (sys.stdout, sys.stderr) == before


@pytest.mark.parametrize(
    ("stream", "term", "expected"),
    [(Terminal(), "xterm", LiveProgress), (Terminal(), "dumb", LineProgress), (io.StringIO(), "xterm", LineProgress)],
)
def test_live_only_in_a_terminal(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, term: str, expected: type[Progress]
) -> None:
    monkeypatch.setenv("TERM", term)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    assert type(make_progress(stream)) is expected


def ipython(monkeypatch: pytest.MonkeyPatch, shell: str, kind: str = "") -> None:
    """As if this ran in IPython, in a shell of a class and, where it has another name, of a kind of it."""
    made = type(shell, (), {})
    made = type(kind, (made,), {}) if kind else made
    module = types.ModuleType("IPython")
    module.get_ipython = made if shell else lambda: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", module)


@pytest.mark.parametrize(
    ("shell", "kind", "expected"),
    [
        ("ZMQInteractiveShell", "", True),
        # Colab's is called Shell.
        ("ZMQInteractiveShell", "Shell", True),
        ("TerminalInteractiveShell", "", False),
        # Imported by a library in a script.
        ("", "", False),
    ],
)
def test_notebooks_are_known(monkeypatch: pytest.MonkeyPatch, shell: str, kind: str, expected: bool) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not in_notebook()
    assert type(default_progress()) is Progress
    ipython(monkeypatch, shell, kind)
    assert in_notebook() is expected


@pytest.mark.parametrize(("widgets", "expected"), [(True, LiveProgress), (False, LineProgress)])
def test_notebooks_without_widgets_get_lines(
    monkeypatch: pytest.MonkeyPatch, widgets: bool, expected: type[Progress]
) -> None:
    ipython(monkeypatch, "ZMQInteractiveShell")
    monkeypatch.setattr("rlprune.utils.progress_display.find_spec", lambda name: object() if widgets else None)
    assert type(default_progress()) is expected
