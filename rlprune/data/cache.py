"""What was made of image files before, in the user's cache folder: to decode 60,000 of them takes longer than most
commands that look at them.

Every entry is a safetensors file of one tensor with its checksum, mapped into memory when it is read. Whatever is wrong
with one, it is made anew; all of them may be removed at any time.
"""

import hashlib
import os
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rlprune.errors import UserError
from rlprune.utils.files import cache_folder, write_atomic

RULES = 1
"""Raised whenever files become pixels in another way, so that what was made before is not taken for it."""
MANY = 1000
"""Files, below which what is made of them is soon made again."""
LIMIT = 4 * 2**30
"""Bytes that all entries take together; those that were not used for longest go first."""


def cached(what: str, paths: Sequence[str], shape: tuple[int, ...], make: Callable[[], Tensor]) -> Tensor:
    """A tensor that is made of files, unless it is known already for files that are as they were.

    Args:
        what: tells apart what is made of the same files.
        paths: of the files: another name, size, time or order of any of them makes it another tensor.
        shape: of the tensor.
        make: makes it, contiguous.
    """
    if len(paths) < MANY:
        return make()
    try:
        entry = cache_folder() / "images" / f"{_key(what, paths, shape)}.safetensors"
    except OSError:
        return make()  # which says what is wrong with a file
    known = _read(entry)
    if known is not None and known.shape == shape:
        return known
    made = make()
    # A cache that cannot be written is no reason to stop.
    with suppress(UserError, OSError):
        if made.nbytes <= LIMIT:
            _write(entry, made)
    return made


def _key(what: str, paths: Sequence[str], shape: tuple[int, ...]) -> str:
    sha = hashlib.sha256(repr((RULES, what, shape)).encode())
    for path in paths:
        facts = os.stat(path)
        # The time of the last change of a file's entry, too: whoever unpacks or copies a file may set the other one.
        words = (os.path.abspath(path), facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
        sha.update(os.fsencode("\0".join(map(str, words)) + "\n"))
    return sha.hexdigest()[:32]


def _checksum(tensor: Tensor) -> str:
    return str(zlib.crc32(tensor.numpy().data))


def _read(entry: Path) -> Tensor | None:
    with suppress(OSError, SafetensorError, ValueError), safe_open(entry, "pt") as file:
        tensor = file.get_tensor("tensor")
        if (file.metadata() or {}).get("checksum") == _checksum(tensor):
            os.utime(entry)
            return tensor
    return None


def _write(entry: Path, tensor: Tensor) -> None:
    facts = {"checksum": _checksum(tensor)}
    write_atomic(entry, lambda temporary: save_file({"tensor": tensor}, temporary, facts))
    left = LIMIT
    for path in sorted(entry.parent.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
        left -= path.stat().st_size
        if left < 0:
            path.unlink()
