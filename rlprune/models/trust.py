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
    """Keep in mind that this person has named the factory in a Python file, and where; other names pass."""
    if not is_file(model):
        return
    _NAMED.add(_full(model))
    record, text = _record(model), f"{_full(model)}\n{Path.cwd()}\n"
    inside = Path.cwd() in _file(model).parents
    if not record.is_file() or (inside and record.read_text(encoding="utf-8") != text):
        # Where nothing can be written the next process asks again.
        with suppress(UserError):
            write_text(record, text)


def home_of(model: str) -> Path | None:
    """The folder from which the imports of a file are meant: that in which it was named, or the working folder.

    Either only if the file is inside of it: others may hold anything.

    Args:
        model: the name of a factory in a Python file.
    """
    lines = _record(model).read_text(encoding="utf-8").splitlines() if _record(model).is_file() else []
    # Records of version 0.1.0 have no second line.
    found = [*(Path(line) for line in lines[1:2]), Path.cwd()]
    return next((folder for folder in found if folder in _file(model).parents), None)


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


def located(model: object, folder: Path) -> object:
    """The name of a network with the path that its file has from here.

    A relative path is that from the folder in which the network was named, which its results are usually in.

    Args:
        model: the name of a network that was found in results.
        folder: of these results.
    """
    if not isinstance(model, str) or not is_file(model):
        return model
    file, _, name = model.rpartition(":")
    if Path(file).is_file() or Path(file).is_absolute():
        return model
    above = next((parent / file for parent in folder.resolve().parents if (parent / file).is_file()), None)
    return model if above is None else f"{above}:{name}"


def allowed() -> list[str]:
    """What may be run in this process, for those that it starts."""
    return sorted(_NAMED)


def _file(model: str) -> Path:
    return Path(model.rpartition(":")[0]).resolve()


def _full(model: str) -> str:
    return f"{_file(model)}:{model.rpartition(':')[2]}"


def _record(model: str) -> Path:
    return data_folder() / "named" / f"{hashlib.sha256(_full(model).encode()).hexdigest()[:32]}.txt"
