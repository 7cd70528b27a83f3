"""Who wants to know how far a run is."""

from types import TracebackType


class Progress:
    """Takes reports of how far a run is, and is silent about them.

    It is a context manager: on leaving, the last stage counts as finished unless an exception is on its way.
    """

    def stage(self, name: str, total: int | None = None, done: int = 0) -> None:
        """Begin a stage; the one before is finished.

        Args:
            name: what is done, such as ``"search"``.
            total: how many steps it has, if that is known.
            done: how many of them an earlier run already did.
        """

    def update(self, done: int, **facts: str) -> None:
        """Tell where the stage stands; cheap enough for every step.

        Args:
            done: steps done so far.
            **facts: what is worth knowing, such as ``best="loss 1.83"``; they replace the ones before.
        """

    def note(self, text: str) -> None:
        """Tell something that should stay readable."""

    def close(self, finished: bool = True) -> None:
        """End the last stage, as finished or not, and give the terminal back. Does no harm twice."""

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(finished=kind is None)
