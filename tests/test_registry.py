"""Methods are found by the names of their files, and those of other packages by entry points."""

import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from rlprune import registry
from rlprune.errors import UserError

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Elsewhere:
    """A method of another package.

    Paper: Nobody, Nothing, 2026
    """

    needs: ClassVar[tuple[str, ...]] = ("luck",)
    times: int = 2
    rate: float = 0.5
    deep: bool = False
    how: Literal["up", "down"] = "up"


@dataclass
class Thawed:
    """Not frozen."""

    needs: ClassVar[tuple[str, ...]] = ()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {
        name: EntryPoint(name, f"{__name__}:{kind.__name__}", "rlprune.criteria")
        for name, kind in {"mine": Elsewhere, "thawed": Thawed}.items()
    }
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    monkeypatch.setattr(registry, "_elsewhere", lambda kind: points if kind == "criterion" else {})


def test_names_are_those_of_the_files() -> None:
    files = (ROOT / "rlprune" / "methods" / "criteria").glob("*.py")
    expected = {path.stem.replace("_", "-") for path in files if not path.stem.startswith(("__", "base"))}
    assert set(registry.names("criterion")) == expected >= {"l1", "bn-scale", "taylor"}
    assert set(registry.names("agent")) < set(registry.names("allocator"))


def test_names_are_listed_without_importing_a_method() -> None:
    program = (
        "import sys; from rlprune import registry; [registry.names(kind) for kind in registry.KINDS]; "
        "print(sorted({'torch', 'numpy', 'stable_baselines3'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in registry.KINDS for name in registry.names(kind)])
def test_every_method_tells_what_people_want_to_know(kind: str, name: str) -> None:
    (row,) = [row for row in registry.describe(kind) if row["name"] == name]
    assert row["kind"] == kind
    assert row["summary"].endswith(".")
    assert row["example"].startswith("rlprune ")
    assert name in row["example"]
    # Controls have no paper, and say so.
    assert row["paper"] or "control" in row["summary"]
    assert registry.make(kind, f"{name}:{row['settings']}") == registry.make(kind, name)


def test_what_a_paper_claims_is_told_apart_from_the_paper() -> None:
    rows = {row["name"]: row for row in registry.describe("criterion")}
    assert rows["l1"]["paper"].endswith("arXiv 1608.08710")
    assert rows["l1"]["claim"].startswith("VGG-16 and ResNet-110 on CIFAR-10 with 34 and 38 % fewer MACs")
    assert not rows["random"]["claim"]


def test_settings_have_the_types_of_their_fields(elsewhere: None) -> None:
    assert registry.make("criterion", "mine") == Elsewhere()
    given = registry.make("criterion", "mine:times=3,rate=1e-2, deep=true,how=down")
    assert given == Elsewhere(3, 0.01, True, "down")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mien", "unknown criterion 'mien': did you mean 'mine'"),
        ("mine:time=3", "unknown setting of criterion mine 'time': did you mean 'times'"),
        ("mine:times", "'times' has no value, expected something like times=1"),
        ("mine:times=x", "criterion mine:times=x: times is 'x': expected int"),
        ("mine:times=1.5", "expected int"),
        ("mine:deep=yes", "deep is 'yes': expected bool"),
        ("mine:how=left", "how is 'left': expected up or down"),
        ("thawed", "is no frozen dataclass with a docstring"),
    ],
)
def test_mistakes(elsewhere: None, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        registry.make("criterion", text)


def test_methods_of_other_packages_come_last(elsewhere: None) -> None:
    assert registry.names("criterion")[-2:] == ("mine", "thawed")
    registry.check("criterion", "mine")
    with pytest.raises(UserError, match="unknown level 'l3': did you mean 'l2'"):
        registry.check("criterion", "l3", "level", ("besides",))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("uniform", ["uniform"]),
        ("uniform, ppo", ["uniform", "ppo"]),
        ("ppo:epochs=2,clip_range=0.1,uniform", ["ppo:epochs=2,clip_range=0.1", "uniform"]),
        ("uniform,,", ["uniform"]),
        ("", []),
    ],
)
def test_several_methods_and_their_settings_are_told_apart(text: str, parts: list[str]) -> None:
    assert registry.split(text) == parts


def test_a_library_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Any = registry.find_spec
    monkeypatch.setattr(registry, "find_spec", lambda name: None if name == "cma" else real(name))
    with pytest.raises(UserError, match=r"cma-es needs the library cma: pip install 'rlprune\[compare\]'"):
        registry.make("allocator", "cma-es")
