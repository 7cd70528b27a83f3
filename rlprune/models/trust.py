"""Whose code may be run: a Python file is run where a person has named it, not where a folder of results names it.

A plan can name any function of any file, with any arguments, and a folder can come from anywhere. So whatever a person
names is remembered for that person; results refer to it later on, on the same machine, without being asked.
"""

import hashlib
from contextlib import suppress
from pathlib import Path

from rlprune.errors import UserError
from rlprune.utils.files import data_folder, write_text

_NAMED: set[str] = set()
"""In this process; there may be nowhere to write to."""


def is_file(model: object) -> bool:
    """Whether the name of a network is that of a factory in a Python file."""
    return isinstance(model, str) and (".py:" in model or model.endswith(".py"))


def remember(model: str) -> None:
    """Keep in mind that this person has named the factory in a Python file; other names pass."""
    if not is_file(model) or _full(model) in _NAMED:
        return
    _NAMED.add(_full(model))
    if not _record(model).is_file():
        # Where nothing can be written the next process asks again.
        with suppress(UserError):
            write_text(_record(model), _full(model) + "\n")


def require_named(model: object, where: Path) -> None:
    """Raise UserError if a file's code would be run for results that nobody here has named it for.

    Args:
        model: the name of a network that was found in a file.
        where: that file or its folder.
    """
    if not isinstance(model, str) or not is_file(model):
        return
    if _full(model) in _NAMED or _record(model).is_file():
        _NAMED.add(_full(model))
        return
    raise UserError(
        f"{where} would run the code of '{model}', which you have never named: look at that file, and if you trust it, "
        f"name it once by `rlprune inspect --model {model}` or rlprune.load(folder, model='{model}')"
    )


def allowed() -> list[str]:
    """What may be run in this process, for those that it starts."""
    return sorted(_NAMED)


def _full(model: str) -> str:
    file, _, name = model.rpartition(":")
    return f"{Path(file).resolve()}:{name}"


def _record(model: str) -> Path:
    return data_folder() / "named" / f"{hashlib.sha256(_full(model).encode()).hexdigest()[:32]}.txt"
