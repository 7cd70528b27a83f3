"""What is installed is all that there is."""

import sys
from pathlib import Path

import pytest

import rlprune

if sys.version_info < (3, 11):
    pytest.skip("the standard library reads no TOML before Python 3.11", allow_module_level=True)

import tomllib

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def test_every_folder_with_python_is_a_package_and_installed() -> None:
    folders = {path.parent for name in ("rlprune", "agents", "envs") for path in (ROOT / name).rglob("*.py")}
    assert all((folder / "__init__.py").is_file() for folder in folders)
    found = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    expected = {name if name.startswith("rlprune") else f"rlprune.{name}" for name in found}
    assert set(SETTINGS["packages"]) == expected


def test_every_other_file_is_installed() -> None:
    files = [path for path in (ROOT / "rlprune").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    installed = {path for pattern in SETTINGS["package-data"]["rlprune"] for path in (ROOT / "rlprune").glob(pattern)}
    assert installed >= set(files)


def test_no_module_takes_the_place_of_a_public_function() -> None:
    """Importing `rlprune.export.x` would make `rlprune.export` a module for good."""
    modules = {path.stem for path in (ROOT / "rlprune").iterdir()} | {"agents", "envs"}
    assert not modules & set(rlprune.__all__)
