"""Files of people's own repositories, with the imports that these have."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torch import nn

from rlprune.errors import UserError
from rlprune.models.registry import build_model
from rlprune.models.trust import remember

Write = Callable[[str, str], Path]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = dict(sys.modules)
    monkeypatch.setattr("rlprune.models.user_imports._MODULES", {})
    monkeypatch.setattr("rlprune.models.user_imports._DIGESTS", {})
    yield
    for name in set(sys.modules) - set(before):
        del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, text: str) -> Path:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def width(model: Path | str) -> int:
    """How many outputs the network of a factory has."""
    module = build_model(f"{model}:make", classes=2, image_size=32)
    assert isinstance(module, nn.Linear)
    return module.out_features


def parts(number: int) -> str:
    return f"from torch import nn\n\n\ndef block():\n    return nn.Linear(1, {number})\n"


TOP = "from {} import block\n\n\ndef make():\n    return block()\n"
INSIDE = "def make():\n    from {} import block\n    return block()\n"


@pytest.mark.parametrize("text", [TOP, INSIDE])
@pytest.mark.parametrize("source", ["parts", ".parts", "models.parts", "lib.deep"])
@pytest.mark.parametrize("package", [True, False])
@pytest.mark.parametrize("where", [".", "models"])
def test_imports(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, source: str, package: bool, where: str
) -> None:
    """Of siblings and packages, absolute and relative, from the repository's root and from the file's own folder."""
    write("models/parts.py", parts(5))
    write("lib/deep/parts.py", parts(5))
    write("lib/deep/__init__.py", parts(5))
    if package:
        write("models/__init__.py", "")
    file = write("models/net.py", text.format(source))
    if where == "models" and not package and source not in ("parts", ".parts"):
        write("pyproject.toml", "")
    monkeypatch.chdir(tmp_path / where)
    assert width(file.relative_to(tmp_path / where)) == 5
    assert width(file) == 5


def test_a_relative_import_from_the_package_above(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("mine/__init__.py", "")
    write("mine/nets/__init__.py", "")
    write("mine/parts.py", parts(4))
    file = write("mine/nets/net.py", TOP.format("..parts"))
    assert width(file) == 4
    write("loose/parts.py", parts(6))
    loose = write("loose/nets/net.py", TOP.format("..parts"))
    monkeypatch.chdir(tmp_path)
    assert width(loose.relative_to(tmp_path)) == 6


@pytest.mark.parametrize("text", [TOP, INSIDE])
@pytest.mark.parametrize("source", ["parts", ".parts", "lib.parts", "models.parts"])
def test_two_repositories_with_siblings_of_the_same_names(write: Write, text: str, source: str) -> None:
    files = []
    for number, name in enumerate(("one", "two"), start=3):
        for folder in ("models", "models/lib"):
            write(f"{name}/{folder}/parts.py", parts(number))
        write(f"{name}/models/__init__.py", "")
        files.append(write(f"{name}/models/net.py", text.format(source)))
    assert [width(file) for file in (*files, *files)] == [3, 4, 3, 4]


def test_what_the_process_has_imported_itself_stays(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("script/parts.py", "OWN = True\n")
    monkeypatch.syspath_prepend(tmp_path / "script")
    own = __import__("parts")
    write("net/parts.py", parts(7))
    file = write("net/net.py", TOP.format("parts"))
    path = list(sys.path)
    assert width(file) == 7
    assert sys.modules["parts"] is own
    assert sys.path == path
    assert width(file) == 7


def test_a_folder_that_is_called_like_a_library(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("torch/parts.py", parts(3))
    monkeypatch.chdir(tmp_path)
    assert width(write("torch/net.py", TOP.format(".parts")).relative_to(tmp_path)) == 3
    assert sys.modules["torch"].nn is nn


def test_a_file_is_run_once_until_it_changes(write: Write) -> None:
    text = "from torch import nn\nprint('run')\n\n\ndef make():\n    return nn.Linear(1, {})\n"
    file = write("net.py", text.format(3))
    module = sys.modules
    assert (width(file), width(file)) == (3, 3)
    write("net.py", text.format(4))
    assert width(file) == 4
    assert module is sys.modules


def test_nothing_is_imported_from_a_working_folder_that_the_file_is_not_in(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be one with results of somebody else."""
    file = write("mine/net.py", TOP.format("missing"))
    write("results/missing.py", parts(3))
    monkeypatch.chdir(tmp_path / "results")
    with pytest.raises(UserError, match=r"net\.py:make needs missing, which is not installed and not beside it"):
        width(file)


@pytest.mark.parametrize("marked", [True, False])
def test_another_process_in_another_folder(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marked: bool
) -> None:
    """A plan names the file alone; its repository is marked, or it is known where the file was named."""
    write("repo/pyproject.toml" if marked else "repo/empty", "")
    write("repo/models/parts.py", parts(5))
    monkeypatch.chdir(tmp_path / "repo")
    if not marked:
        remember("models/net.py:make")
    file = write("repo/models/net.py", INSIDE.format("models.parts"))
    write("elsewhere/empty", "")
    code = (
        "from rlprune.models.registry import build_model\n"
        f"print(build_model('{file}:make', classes=2, image_size=32).out_features)"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "elsewhere", capture_output=True, text=True)
    assert ended.stdout == "5\n", ended.stderr
