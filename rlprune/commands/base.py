"""What all commands share: settings from keywords and a file, and somebody to tell how far it is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import Parameter, Signature, cleandoc
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rlprune.config.options import Settings
from rlprune.config.resolve import resolve
from rlprune.utils.progress import Progress

Given = TypeVar("Given", bound=Settings)
Result = dict[str, Any]
ARGUMENTS = """
Args:
    config: YAML file of settings, below those given here.
    progress: told how far it is; without one a notebook shows it, and elsewhere nothing does.
    settings: see `rlprune.config.commands.{}`.

Raises:
    UserError: whatever cannot be used, before any work starts.
"""


@contextmanager
def shown(progress: Progress | None) -> Iterator[Progress]:
    """The progress that was given, which is its owner's to close; else what is usual here, closed at the end."""
    if progress is not None:
        yield progress
        return
    # It draws, and drawing takes a while to import.
    from rlprune.utils.progress_display import default_progress

    with default_progress() as found:
        yield found


class Command(Protocol):
    """A command as a Python function."""

    def __call__(self, *, config: Path | None = None, progress: Progress | None = None, **settings: Any) -> Result:
        """Run it; returns what ``--json`` prints."""


def command(kind: type[Given]) -> Callable[[Callable[[Given, Progress], Result]], Command]:
    """Make a command of a function of checked settings and a progress.

    Args:
        kind: its settings.
    """

    def decorate(function: Callable[[Given, Progress], Result]) -> Command:
        @wraps(function)
        def run(*, config: Path | None = None, progress: Progress | None = None, **settings: Any) -> Result:
            with shown(progress) as told:
                return function(resolve(kind, settings, config), told)

        run.__doc__ = cleandoc(function.__doc__ or "") + "\n" + ARGUMENTS.format(kind.__name__)
        only, none = Parameter.KEYWORD_ONLY, None
        run.__signature__ = Signature(  # type: ignore[attr-defined]
            [
                Parameter("config", only, default=none, annotation=Path | None),
                Parameter("progress", only, default=none, annotation=Progress | None),
                Parameter("settings", Parameter.VAR_KEYWORD, annotation=Any),
            ],
            return_annotation=Result,
        )
        return run

    return decorate
