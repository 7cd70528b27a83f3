"""Methods found by name: a file each in the folder of their kind, or an entry point of another package.

A name is that of the file, with hyphens for its underscores, so that names can be listed without importing anything. A
file holds one frozen dataclass, the method; its fields are the settings that may follow its name: `taylor:order=2`.
Files that begin with ``base`` hold what the methods of a kind share.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any, Literal, get_args, get_origin, get_type_hints

from rlprune.errors import UserError, unknown


@dataclass(frozen=True)
class Kind:
    """A kind of method.

    Attributes:
        folders: packages whose files are the methods.
        group: of the entry points by which other packages add theirs.
        example: a command with a method of this kind in the place of ``{}``.
    """

    folders: tuple[str, ...]
    group: str
    example: str


KINDS = {
    "criterion": Kind(
        ("rlprune.methods.criteria",), "rlprune.criteria", "rlprune search --model vgg16 --budget 0.3 --criterion {}"
    ),
    "allocator": Kind(
        ("rlprune.methods.allocators", "rlprune.agents.allocators", "rlprune.agents.algorithms"),
        "rlprune.allocators",
        "rlprune compare --model vgg16 --budget 0.3 --methods {}",
    ),
    "agent": Kind(
        ("rlprune.agents.algorithms",), "rlprune.agents", "rlprune search --model vgg16 --budget 0.3 --agent {}"
    ),
    "decision": Kind(
        ("rlprune.envs.decisions",), "rlprune.decisions", "rlprune search --model resnet20 --budget 0.3 --decide {}"
    ),
    "recovery": Kind(
        ("rlprune.methods.recovery",), "rlprune.recoveries", "rlprune search --model vgg16 --budget 0.3 --repair {}"
    ),
    "unit": Kind(("rlprune.methods.units",), "rlprune.units", "rlprune search --model vgg16 --budget 0.5 --unit {}"),
}


@cache
def _files(kind: str) -> Mapping[str, str]:
    """Name -> module of the methods that come with rlprune."""
    found: dict[str, str] = {}
    for folder in KINDS[kind].folders:
        spec = find_spec(folder)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        for entry in iter_modules(spec.submodule_search_locations):
            if not entry.name.startswith("base"):
                found[entry.name.replace("_", "-")] = f"{folder}.{entry.name}"
    return found


@cache
def _elsewhere(kind: str) -> Mapping[str, Any]:
    """Name -> entry point of the methods of other packages."""
    from importlib.metadata import entry_points  # which no `rlprune --help` should wait for

    return {point.name: point for point in entry_points(group=KINDS[kind].group)}


def names(kind: str) -> tuple[str, ...]:
    """The names of all methods of a kind, those of other packages last."""
    mine = sorted(_files(kind))
    return (*mine, *sorted(set(_elsewhere(kind)) - set(mine)))


def find(kind: str, name: str) -> type[Any]:
    """The frozen dataclass of a method.

    Raises:
        UserError: there is none of this name, or what another package offers under it is no method.
    """
    if name in _files(kind):
        module = import_module(_files(kind)[name])
        (method,) = [each for each in vars(module).values() if _is_method(each) and each.__module__ == module.__name__]
        return method  # type: ignore[no-any-return]
    if name not in _elsewhere(kind):
        raise unknown(kind, name, names(kind))
    found = _elsewhere(kind)[name].load()
    if not _is_method(found):
        raise UserError(f"{kind} '{name}': {_elsewhere(kind)[name].value} is no frozen dataclass with a docstring")
    return found  # type: ignore[no-any-return]


def _is_method(found: Any) -> bool:
    frozen = is_dataclass(found) and found.__dataclass_params__.frozen  # type: ignore[union-attr]
    return isinstance(found, type) and frozen and hasattr(found, "needs")


def make(kind: str, text: str) -> Any:
    """A method with its settings.

    Args:
        kind: one of `KINDS`.
        text: a name, and maybe settings: ``l1``, ``taylor:order=2``.

    Raises:
        UserError: an unknown name, an unknown setting, or a value of the wrong type; a library that is not installed.
    """
    name, _, rest = text.partition(":")
    method = find(kind, name)
    if (needed := getattr(method, "library", None)) and find_spec(needed[0]) is None:
        raise UserError(f"{kind} {name} needs the library {needed[0]}: pip install 'rlprune[{needed[1]}]'")
    types = get_type_hints(method)
    settings: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in rest.split(","))):
        key, given, value = part.partition("=")
        if key not in {entry.name for entry in fields(method)}:
            raise unknown(f"setting of {kind} {name}", key, [entry.name for entry in fields(method)])
        if not given:
            raise UserError(f"{kind} {text}: '{part}' has no value, expected something like {key}=1")
        settings[key] = _value(f"{kind} {text}: {key}", types[key], value)
    return method(**settings)


def check(kind: str, text: str, what: str = "", besides: tuple[str, ...] = ()) -> None:
    """Raise UserError unless there is such a method with such settings; a bare name is looked up without importing it.

    Args:
        kind: one of `KINDS`.
        text: a name, and maybe settings.
        what: how to call it in the error; by default as its kind.
        besides: other names that the error shall list.
    """
    name, _, settings = text.partition(":")
    if name not in _files(kind) and name not in _elsewhere(kind):
        raise unknown(what or kind, name, (*names(kind), *besides))
    if settings:
        make(kind, text)


def _value(what: str, kind: Any, text: str) -> Any:
    """A setting of the type of its field."""
    if get_origin(kind) is Literal:
        if text not in (allowed := {str(value): value for value in get_args(kind)}):
            raise UserError(f"{what} is '{text}': expected {' or '.join(allowed)}")
        return allowed[text]
    readers: dict[Any, Callable[[str], Any]] = {
        bool: {"true": True, "false": False}.__getitem__, int: int, float: float, str: str,
    }  # fmt: skip
    try:
        return readers[kind](text)
    except (KeyError, ValueError):
        raise UserError(f"{what} is '{text}': expected {kind.__name__}") from None


def split(text: str) -> list[str]:
    """Several methods with commas between them, whose settings have commas, too: ``l1,ppo:epochs=2,clip_range=0.1``."""
    found: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        if found and "=" in part and ":" not in part:
            found[-1] += f",{part}"
        else:
            found.append(part)
    return [part for part in found if part]


def describe(kind: str) -> list[dict[str, str]]:
    """What people want to know of every method of a kind: name, settings, needs, paper, claim, summary, example."""
    rows = []
    for name in names(kind):
        method = find(kind, name)
        summary, _, rest = inspect.getdoc(method).partition("\n")  # type: ignore[union-attr]
        parts = rest.strip().split("\n\n")
        defaults = {entry.name: entry.default for entry in fields(method) if entry.default is not MISSING}
        rows.append(
            {
                "name": name,
                "kind": kind,
                "settings": ",".join(f"{key}={value}" for key, value in defaults.items()),
                "needs": ", ".join(method.needs),
                "paper": _part(parts, "Paper: "),
                "claim": _part(parts, "Claim: "),
                "summary": summary,
                "example": getattr(method, "example", KINDS[kind].example.format(name)),
            }
        )
    return rows


def _part(parts: list[str], label: str) -> str:
    """What a docstring says in a paragraph with a label."""
    return next((" ".join(part.removeprefix(label).split()) for part in parts if part.startswith(label)), "")
