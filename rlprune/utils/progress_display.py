"""Progress for people: a live line in a terminal or a notebook, plain lines in a log."""

import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rlprune.utils.progress import Progress

Clock = Callable[[], float]


class _Stage:
    """One stage and its clock."""

    def __init__(self, name: str, total: int | None, done: int, clock: Clock) -> None:
        self.name, self.total, self.done, self.first = name, total, done, done
        self.facts: dict[str, str] = {}
        self.clock, self.start = clock, clock()

    def update(self, done: int, facts: dict[str, str]) -> None:
        self.done, self.facts = done, facts

    def elapsed(self) -> str:
        return duration(self.clock() - self.start)

    def count(self) -> str:
        return f"{self.done}/{self.total}" if self.total is not None else str(self.done or "")

    def left(self) -> str:
        """The time left at the mean pace so far, or nothing where that cannot be known."""
        steps = self.done - self.first
        if self.total is None or steps <= 0 or self.done >= self.total:
            return ""
        return f"{duration((self.clock() - self.start) / steps * (self.total - self.done))} left"

    def told(self) -> str:
        return " · ".join(f"{name.replace('_', ' ')} {fact}" for name, fact in self.facts.items())


class LineProgress(Progress):
    """Plain lines: the beginning and the end of every stage, and between them one every few seconds at most.

    Args:
        stream: where the lines go.
        clock: seconds, from any origin.
        every: seconds between two lines.
    """

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic, every: float = 5.0) -> None:
        self._stream, self._clock, self._every = stream, clock, every
        self._stage: _Stage | None = None
        self._last = 0.0

    def stage(self, name: str, total: int | None = None, done: int = 0) -> None:
        self.close()
        self._stage, self._last = _Stage(name, total, done, self._clock), self._clock()
        self._line(name, self._stage.count())

    def update(self, done: int, **facts: str) -> None:
        stage = self._stage
        if stage is None:
            return
        stage.update(done, facts)
        # The last step is left to the line that ends the stage.
        if done != stage.total and self._clock() - self._last >= self._every:
            self._last = self._clock()
            self._line(stage.name, stage.count(), stage.told(), stage.elapsed(), stage.left())

    def note(self, text: str) -> None:
        self._line(text)

    def close(self, finished: bool = True) -> None:
        stage, self._stage = self._stage, None
        if stage is not None:
            end = f"{'done in' if finished else 'stopped after'} {stage.elapsed()}"
            self._line(stage.name, stage.count(), stage.told(), end)

    def _line(self, *parts: str) -> None:
        print(*filter(None, parts), sep="  ", file=self._stream, flush=True)


class LiveProgress(Progress):
    """One live line at the bottom of the terminal; finished stages and notes stay above it.

    Args:
        console: of a terminal or a notebook.
        clock: seconds, from any origin.
    """

    def __init__(self, console: Console, clock: Clock = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._stage: _Stage | None = None
        # Rich's own thread draws, four times a second: an update only stores numbers.
        self._live = Live(console=console, transient=True, get_renderable=self._render, refresh_per_second=4)

    def stage(self, name: str, total: int | None = None, done: int = 0) -> None:
        self._end("✓", "green")
        self._stage = _Stage(name, total, done, self._clock)
        self._live.start(refresh=True)

    def update(self, done: int, **facts: str) -> None:
        if self._stage is not None:
            self._stage.update(done, facts)

    def note(self, text: str) -> None:
        self._console.print(Text(text))

    def close(self, finished: bool = True) -> None:
        self._live.stop()
        self._end("✓", "green") if finished else self._end("✗", "red")

    def _end(self, mark: str, style: str) -> None:
        stage, self._stage = self._stage, None
        if stage is not None:
            rest = "  ".join(filter(None, (stage.count(), stage.elapsed(), stage.told())))
            self._console.print(Text.assemble((mark, style), f" {stage.name}  ", (rest, "dim")))

    def _render(self) -> Group | Text:
        stage = self._stage
        if stage is None:
            return Text()
        line = Table.grid(padding=(0, 1))
        cells: list[Text | ProgressBar] = [Text("●", "cyan"), Text(stage.name, "bold")]
        if stage.total:
            wide = min(max(self._console.width // 3, 10), 60)
            bar = ProgressBar(stage.total, stage.done, width=wide, complete_style="cyan", finished_style="green")
            cells.append(bar)
        cells += [Text(part) for part in (stage.count(), stage.elapsed()) if part]
        cells += [Text(f"· {stage.left()}", "dim")] if stage.left() else []
        line.add_row(*cells)
        facts = Text(f"  {stage.told()}", "dim", no_wrap=True, overflow="ellipsis")
        return Group(line, facts) if stage.facts else Group(line)


def duration(seconds: float) -> str:
    """Minutes and seconds, such as ``4:05``, or with hours before them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def make_progress(stream: TextIO) -> Progress:
    """Live where the stream is a terminal that can move its cursor, plain lines elsewhere."""
    console = Console(file=stream)
    live = console.is_terminal and not console.is_dumb_terminal
    return LiveProgress(console) if live and stream.isatty() else LineProgress(stream)


def default_progress() -> Progress:
    """Shown in a notebook, where somebody sits and waits, and silent elsewhere: a script has an output of its own."""
    if not in_notebook():
        return Progress()
    # Without widgets there is no line that could be drawn anew.
    live = find_spec("ipywidgets") is not None
    return LiveProgress(Console(force_jupyter=True)) if live else LineProgress(sys.stdout)


def in_notebook() -> bool:
    """Whether IPython runs this for a notebook: Jupyter, or what is built on it, such as Colab."""
    # Where nobody has imported it, it runs nothing.
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return any(kind.__name__ == "ZMQInteractiveShell" for kind in type(shell).__mro__)
