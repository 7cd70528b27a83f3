import os
import sys

import pytest

from rlprune.errors import UserError
from rlprune.execution.isolated import run_isolated


def where(value: list[int]) -> dict[str, object]:
    """Told by the process that runs it."""
    print("noise")
    return {
        "pid": os.getpid(),
        "threads": os.environ["OMP_NUM_THREADS"],
        "value": value,
        "torch": "torch" in sys.modules,
    }


def refuse(why: str) -> None:
    raise UserError(why)


def die() -> None:
    os._exit(7)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions of this file, there as well."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")]))
    for function in (where, refuse, die):
        monkeypatch.setattr(function, "__module__", "test_isolated")


def test_another_process_answers() -> None:
    found = run_isolated(where, threads=3, value=[1, 2])
    assert found["pid"] != os.getpid()
    assert (found["threads"], found["value"]) == ("3", [1, 2])


def test_mistakes_of_the_user_come_back() -> None:
    with pytest.raises(UserError, match=r"^not so$"):
        run_isolated(refuse, threads=1, why="not so")


def test_a_process_that_dies_is_told() -> None:
    with pytest.raises(UserError, match="the process that measures ended with code 7"):
        run_isolated(die, threads=1)
