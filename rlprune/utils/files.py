"""Atomic writes, and JSON files that say what they are."""

import errno
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from rlprune.errors import UserError

FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
FULL_WORDS = ("No space left", "File too large", "unexpected pos", "failed writing file")
"""The writers of tensors have errors of their own for a disk that is full."""
UNFINISHED = re.compile(r"\.[0-9]+\..+")
"""Names of temporary files, with the process that writes them."""


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it into place: readers see all of it or nothing.

    Raises:
        UserError: the folder cannot be written, or there is no room; `path` is as it was.
    """
    require_writable(path.parent)
    # The name keeps its ending, by which some writers choose the format; the file gets the usual permissions.
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        with writing(path):
            write(temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def is_empty(folder: Path) -> bool:
    """Whether there is no file in a folder, but for what a process that was killed had begun to write."""
    files = (path for path in folder.rglob("*") if not path.is_dir())
    return all(UNFINISHED.fullmatch(path.name) for path in files)


def remove_unfinished(folder: Path) -> None:
    """Remove what processes that were killed had begun to write to a folder."""
    for path in [path for path in folder.rglob(".*") if UNFINISHED.fullmatch(path.name)]:
        path.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Whoever writes a file says so where it fails, and not where in the code."""
    try:
        with room_for(path):
            yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """A disk that is full is told to people, whoever meets it; all other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UserError(f"cannot write {error.filename or path}: {error.strerror}") from None
    except (RuntimeError, SafetensorError) as error:
        if not any(words in str(error) for words in FULL_WORDS):
            raise
        raise UserError(f"cannot write {path}: is the disk full? ({error})") from None


def require_writable(folder: Path) -> None:
    """Raise UserError unless files can be written to a folder, which is made if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from None


def cache_folder() -> Path:
    """The user's cache folder for rlprune."""
    from platformdirs import user_cache_path

    return user_cache_path("rlprune")


def data_folder() -> Path:
    """The user's folder for what rlprune must not forget when caches are emptied."""
    from platformdirs import user_data_path

    return user_data_path("rlprune")


def check_writable(folder: Path) -> None:
    """Like `require_writable`, without leaving the folder: so that hours of work do not end in nowhere to put them."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        require_writable(folder)
    finally:
        for path in missing:
            with suppress(OSError):
                path.rmdir()


def check_new(path: Path) -> Path:
    """A path where `new_folder` will succeed; nothing is made yet.

    Raises:
        UserError: something else is there, or it cannot be written.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists and is not empty: choose another --out")
    check_writable(path)
    return path


def new_folder(path: Path) -> Path:
    """An empty folder to write to.

    Raises:
        UserError: something else is there, or it cannot be written.
    """
    require_writable(check_new(path))
    return path


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(data, indent=2) + "\n")


@dataclass(frozen=True)
class FileFormat:
    """JSON files that say what they are: a format of ours, and its version.

    Attributes:
        name: of the format.
        version: the one that is written, and the newest that can be read.
        oldest: the oldest that can be read.
    """

    name: str
    version: int = 1
    oldest: int = 1

    def write(self, path: Path, content: Mapping[str, Any]) -> None:
        """Write a file atomically."""
        write_json(path, {"format": self.name, "version": self.version, **content})

    def read(self, path: Path) -> dict[str, Any]:
        """The content of a file, without the words on the format itself.

        Raises:
            UserError: missing, not JSON, another format, or a version that cannot be read.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from None
        # Also a number of too many digits, and brackets in brackets without end.
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is not JSON: {error}") from None
        if not isinstance(data, dict) or data.get("format") != self.name:
            raise UserError(f"{path} is not a file of the format {self.name}")
        version = data.get("version")
        if not isinstance(version, int) or version > self.version:
            raise UserError(f"{path} has format version {version}; this rlprune reads up to {self.version}")
        if version < self.oldest:
            raise UserError(
                f"{path} has format version {version}; this rlprune reads from {self.oldest} on: make it anew"
            )
        return {key: value for key, value in data.items() if key not in ("format", "version")}
