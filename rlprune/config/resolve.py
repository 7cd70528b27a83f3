"""Settings from what is given explicitly, a YAML file and the defaults, and back to text.

Which settings there are stands in `rlprune.config.commands`.
"""

import math
import operator
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, fields
from numbers import Real
from os import PathLike
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from rlprune import registry
from rlprune.config.commands import SECTIONS
from rlprune.config.options import Auto, Channels, Floats, ModelArgs, Paths, Settings, Sides
from rlprune.errors import UserError, unknown
from rlprune.utils.arguments import write_model_args
from rlprune.utils.shapes import LARGEST_SIDE, parse_sides, sides_of

VERSION = 1
T = TypeVar("T", bound=Settings)


def sections(cls: type[Settings]) -> dict[str, list[Field[Any]]]:
    """The fields of a command under the titles of the classes that brought them in, in the order of ``--help``."""
    found: dict[str, list[Field[Any]]] = {title: [] for title in SECTIONS}
    bases = [base for base in reversed(cls.__mro__) if issubclass(base, Settings)]
    for entry in fields(cls):
        owner = next(base for base in bases if entry.name in base.__dataclass_fields__)
        found[owner.title].append(entry)
    return {title: entries for title, entries in found.items() if entries}


def resolve(cls: type[T], settings: Mapping[str, Any], file: Path | None = None) -> T:
    """Defaults, under a YAML file, under what is given explicitly.

    Args:
        cls: the settings of a command, one of ``COMMANDS``.
        settings: what is given explicitly, by field name.
        file: a YAML mapping by field name; what ``to_yaml`` writes is one.

    Raises:
        UserError: an unknown name, a value of the wrong type or out of range, or a required setting that is missing.
    """
    values = _checked(cls, _read(file), f" in {file}") if file else {}
    values |= _checked(cls, settings, "")
    for entry in fields(cls):
        if entry.default is MISSING and entry.name not in values:
            raise UserError(f"{spelled(entry)} is missing: {entry.metadata['help']}")
    return cls(**values)


def spelled(entry: Field[Any]) -> str:
    """How the command line calls a field."""
    return entry.metadata["positional"] or "--" + entry.name.replace("_", "-")


def as_dict(config: Settings) -> dict[str, Any]:
    """All settings as text, numbers, lists and ``None``, which YAML and JSON can hold."""
    return {entry.name: _plain(getattr(config, entry.name)) for entry in fields(config)}


def to_yaml(config: Settings) -> str:
    """All settings with the version of this format; ``resolve`` reads it back."""
    return yaml.safe_dump({"version": VERSION, **as_dict(config)}, sort_keys=False, allow_unicode=True)


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One line for every setting that differs, such as ``evaluations: 300 (there) / 100 (now)``."""
    names = [*there, *(name for name in now if name not in there)]
    pairs = [(name, there.get(name), now.get(name)) for name in names]
    return [f"{name}: {_told(old)} (there) / {_told(new)} (now)" for name, old, new in pairs if old != new]


def _told(value: object) -> object:
    return "not set" if value is None else value


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def _read(file: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    # Also a number of too many digits, and brackets in brackets without end.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UserError(f"{file} holds {type(data).__name__}: expected settings, one a line, such as budget: 0.3")
    version = data.pop("version", VERSION)
    if version != VERSION:
        raise UserError(f"{file} has format version {version}; this rlprune reads version {VERSION}")
    return data


def _checked(cls: type[Settings], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    entries, types = {entry.name: entry for entry in fields(cls)}, get_type_hints(cls)
    for name in given:
        if name not in entries:
            raise unknown(f"setting{where}", str(name), entries)
    return {name: _value(entries[name], types[name], value, where) for name, value in given.items()}


def _value(entry: Field[Any], kind: Any, given: object, where: str) -> Any:
    """A value of the type of the field, and in its range."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if given is None and type(None) in kinds:
        return None
    # Text comes last: it would take a number that is written in it.
    readers = [reader for reader in _READERS if reader in kinds]
    for reader in readers:
        try:
            value = _READERS[reader][0](given)
        except (TypeError, ValueError, OverflowError):
            continue
        _check_range(entry, value, where)
        return value
    expected = " or ".join(_READERS[reader][1] for reader in readers)
    raise UserError(f"{entry.name} is {_SHORT.repr(given)}{where}: expected {expected}")


def _check_range(entry: Field[Any], value: Any, where: str) -> None:
    limits = entry.metadata
    if limits["check"] and isinstance(value, str):
        limits["check"](value)
    elif (limits["choices"] or limits["method"]) and value not in limits["choices"]:
        if not limits["method"]:
            raise unknown(f"{entry.name}{where}", value, limits["choices"])
        registry.check(limits["method"], value, f"{entry.name}{where}", limits["choices"])
    if isinstance(value, str):
        return
    if limits["minimum"] is not None and value < limits["minimum"]:
        raise UserError(f"{entry.name} is {value}{where}: expected at least {limits['minimum']}")
    if limits["maximum"] is not None and value > limits["maximum"]:
        raise UserError(f"{entry.name} is {value}{where}: expected at most {limits['maximum']}")
    if limits["above"] is not None and value <= limits["above"]:
        raise UserError(f"{entry.name} is {value}{where}: expected more than {limits['above']}")


def _bool(given: object) -> bool:
    if not isinstance(given, bool):
        raise TypeError
    return given


def _int(given: Any) -> int:
    if isinstance(given, bool):
        raise TypeError
    return int(given) if isinstance(given, str) else operator.index(given)


def _float(given: Any) -> float:
    # YAML 1.1 reads 1e-3 as text, and a bool is a number to Python.
    if isinstance(given, bool) or not isinstance(given, (str, Real)):
        raise TypeError
    value = float(given)
    if not math.isfinite(value):
        raise ValueError
    return value


def _auto(given: Any) -> str:
    if given != "auto":
        raise ValueError
    return "auto"


def _sides(given: Any) -> int | str:
    try:
        return sides_of(*parse_sides(given))
    except UserError as error:
        raise ValueError from error


def _model_args(given: Any) -> str:
    if not isinstance(given, Mapping):
        raise TypeError
    return write_model_args(given)


def _channels(given: Any) -> int:
    value = _int(given)
    if value not in get_args(Channels):
        raise ValueError
    return value


def _floats(given: Any) -> Floats:
    parts: Iterable[Any] = given.split(",") if isinstance(given, str) else given
    return tuple(_float(part) for part in parts)


def _path(given: Any) -> Path:
    if not isinstance(given, (str, PathLike)) or not str(given).strip():
        raise TypeError
    return Path(given).expanduser()


def _paths(given: Any) -> Paths:
    if isinstance(given, (str, PathLike)):
        return (_path(given),)
    if not given:
        raise ValueError
    return tuple(_path(part) for part in given)


def _text(given: object) -> str:
    if not isinstance(given, str) or not given.strip():
        raise TypeError
    return given.strip()


_SHORT = reprlib.Repr()
"""A file of a few lines of YAML can stand for more text than there is memory."""
_SHORT.maxstring = _SHORT.maxother = 200

_READERS: dict[Any, tuple[Callable[[Any], Any], str]] = {
    bool: (_bool, "true or false"),
    int: (_int, "a whole number"),
    float: (_float, "a number"),
    Floats: (_floats, "numbers such as 0.49,0.48,0.45"),
    Path: (_path, "a path"),
    Paths: (_paths, "paths"),
    Auto: (_auto, "auto"),
    Sides: (_sides, f"height x width such as 32x48, from 1 to {LARGEST_SIDE} pixels each"),
    ModelArgs: (_model_args, "a mapping of names to numbers, texts, lists and mappings"),
    Channels: (_channels, "1 for grey, 3 for colour or 4 with transparency"),
    str: (_text, "text"),
}
