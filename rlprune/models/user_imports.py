"""A Python file of the user's, imported as its repository means it.

What stands beside it, where its package and its repository begin, and in the folder in which a person has named it can
be imported: at the top of the file and while the factory runs; relative imports work. Two repositories may call
different things by the same name, such as `models`: modules of the one are out of the way while something of the other
runs.
"""

import hashlib
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

ROOTS = (".git", "pyproject.toml", "setup.py", "setup.cfg")
"""What stands where a repository begins."""
OURS = __name__.partition(".")[0]
_MODULES: dict[Path, dict[str, ModuleType]] = {}
"""Folder of a user's file -> the modules that came with it, by name."""
_DIGESTS: dict[Path, str] = {}
"""A user's file -> hash of the text that its module was made from."""


@contextmanager
def repository(file: Path, home: Path | None) -> Iterator[None]:
    """Within, imports find what the repository of a file holds before anything else.

    Args:
        file: a Python file, resolved.
        home: the folder above it in which a person has named it, if it is known.
    """
    folders = _folders(file, home)
    mine, before = _MODULES.setdefault(file.parent, {}), list(sys.path)
    own = [folder for folder in folders if folder not in {Path(path).resolve() for path in before}]
    others = {name for folder, known in _MODULES.items() if folder != file.parent for name in known}
    tops = {top for top in _tops(sys.modules) if _is_in_the_way(top, folders)}
    hidden = {name: module for name, module in sys.modules.items() if name in others or _top(name) in tops}
    for name in hidden:
        del sys.modules[name]
    there = set(sys.modules)
    sys.modules.update(mine)
    sys.path[:0] = map(str, folders)
    try:
        yield
    finally:
        for folder in folders:
            # Whoever imports as scripts do may have changed it.
            with suppress(ValueError):
                sys.path.remove(str(folder))
        new = set(sys.modules) - there
        places = {name: _place(name) for name in _tops(new)}
        mine.update({name: sys.modules[name] for name in new if places[_top(name)] in own})
        # What the process had imported itself is there again; what belongs to another file waits for that.
        known = {id(module) for modules in _MODULES.values() for module in modules.values()}
        sys.modules.update({name: module for name, module in hidden.items() if id(module) not in known})


def import_file(file: Path, home: Path | None) -> ModuleType:
    """Import a file, within `repository`; one that has not changed since is not run again.

    Args:
        file: a Python file, resolved.
        home: as for `repository`.
    """
    name = f"{_package(file, home)}.{file.stem}"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    # The package may have imported it by now.
    known = sys.modules.get(name)
    if getattr(known, "__file__", None) == str(file) and _DIGESTS.setdefault(file, digest) == digest:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file, loader=_TextLoader(name, str(file)))
    assert spec is not None
    module = _run(name, spec)
    _DIGESTS[file] = digest
    return module


class _TextLoader(SourceFileLoader):
    """Runs a file's text and never what was compiled of it before: a change within a second, of one size, looks old."""

    def get_code(self, fullname: str) -> CodeType:
        """Compiled anew."""
        return self.source_to_code(self.get_data(self.path), self.path)


def sources(file: Path) -> str:
    """The text of a file that was imported and of all that its repository has given to it.

    Args:
        file: a Python file, resolved.
    """
    files = {str(getattr(module, "__file__", None)) for module in _MODULES.get(file.parent, {}).values()}
    beside = sorted(name for name in files if name.endswith(".py") and name != str(file))
    return "".join(Path(name).read_text(encoding="utf-8") for name in (str(file), *beside))


def _folders(file: Path, home: Path | None) -> list[Path]:
    """Where a repository is looked through: beside the file, where it was named, where its package and itself begin."""
    root = next((folder for folder in file.parents if any((folder / name).exists() for name in ROOTS)), None)
    above = [home, _beginning(file, home)[0], root]
    return list(dict.fromkeys([file.parent, *(folder for folder in above if folder)]))


def _beginning(file: Path, home: Path | None) -> tuple[Path, list[str]]:
    """The folder in which a file's outermost package is, and the names from there to the file's own folder."""
    root, names = file.parent, list[str]()
    while (root / "__init__.py").is_file():
        root, names = root.parent, [root.name, *names]
    if not names and home is not None and home in root.parents:
        root, names = home, list(file.parent.relative_to(home).parts)
    return root, names


def _package(file: Path, home: Path | None) -> str:
    """The name of the package that a file is in, which is imported; one of its own where it is in none."""
    root, names = _beginning(file, home)
    if not names or not all(name.isidentifier() for name in names) or _is_taken(names[0], root):
        # A folder of two files of one name, and folders that are called like libraries.
        root, names = file.parent.parent, [file.parent.name]
        unique = f"rlprune_user_{hashlib.sha256(str(file.parent).encode()).hexdigest()[:8]}"
    else:
        unique = names[0]
    name, folder = "", root
    for part, called in zip(names, [unique, *names[1:]], strict=True):
        name, folder = f"{name}.{called}".lstrip("."), folder / part
        if name not in sys.modules:
            start = folder / "__init__.py"
            spec = ModuleSpec(name, None, is_package=True)
            if start.is_file():
                spec = importlib.util.spec_from_file_location(name, start) or spec
            spec.submodule_search_locations = [str(folder)]
            _run(name, spec)
    return name


def _run(name: str, spec: ModuleSpec) -> ModuleType:
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        if spec.loader is not None:
            spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    parent, _, leaf = name.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], leaf, module)
    return module


def _is_taken(name: str, root: Path) -> bool:
    """Whether a name means something else to everybody."""
    if name in sys.modules:
        return _place(name) != root
    libraries = [path for path in sys.path if _is_library(Path(path))]
    return PathFinder.find_spec(name, libraries) is not None


def _is_in_the_way(top: str, folders: Iterable[Path]) -> bool:
    """Whether a module that is loaded would be taken for one that the repository has itself."""
    if top in (OURS, "__main__"):
        return False
    here = next((folder for folder in folders if _holds(folder, top)), None)
    place = None if here is None else _place(top)
    return place is not None and place != here and not _is_library(place)


def _holds(folder: Path, name: str) -> bool:
    return os.path.isfile(folder / f"{name}.py") or os.path.isfile(folder / name / "__init__.py")


def _place(name: str) -> Path | None:
    """The folder in which a module that is loaded was found, or None where it comes from no file."""
    module = sys.modules.get(name)
    paths = list(getattr(module, "__path__", None) or []) or [getattr(module, "__file__", None)]
    return Path(paths[0]).resolve().parent if isinstance(paths[0], str) else None


@cache
def _is_library(folder: Path) -> bool:
    homes = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    inside = any(home == folder or home in folder.parents for home in homes)
    return inside or bool({"site-packages", "dist-packages"} & set(folder.parts))


def _top(name: str) -> str:
    return name.partition(".")[0]


def _tops(names: Iterable[str]) -> set[str]:
    return {_top(name) for name in names}
