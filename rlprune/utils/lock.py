"""One process at a time works in a run folder."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from rlprune.errors import UserError
from rlprune.utils.files import FileFormat, remove_unfinished, require_writable

OWNER_FORMAT = FileFormat("rlprune-owner")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a run folder to this process, and remove what others had begun to write there when they were killed.

    The operating system holds the lock, and lets it go when the process ends in whatever way: none is ever left behind.

    Args:
        folder: the run folder.

    Raises:
        UserError: another process works in it; says which one.
    """
    state = folder / "state"
    require_writable(state)
    lock, owner = FileLock(state / "lock"), state / "owner.json"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{folder} is in use{_owner(owner)}: wait until it ends, or choose another --out") from None
    try:
        remove_unfinished(folder)
        about = {"pid": os.getpid(), "host": platform.node(), "since": datetime.now().isoformat(" ", "seconds")}
        OWNER_FORMAT.write(owner, about)
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _owner(path: Path) -> str:
    """Who has the lock, as far as that can be known."""
    try:
        owner = OWNER_FORMAT.read(path)
        return f" by process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (UserError, KeyError):
        return ""
