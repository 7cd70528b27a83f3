"""Every line of the second table of docs/reliability.md."""

from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from faults import Fault
from hostile import FAULTS, PICKLED, World, asked_to_unpickle, make_world, small_searches, unpickled

from rlprune.config.commands import COMMANDS


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with small_searches():
        yield make_world(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize("fault", [one for one in FAULTS if one is not unpickled], ids=lambda fault: fault.__name__)
def test_it_works_or_says_what_is_wrong(fault: Callable[[World], Fault], world: World) -> None:
    said = fault(world)
    page = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()
    assert f"| {' | '.join(said)} |" in page, "python scripts/checks/hostile.py writes it"


@pytest.mark.parametrize("setting", PICKLED)
def test_nothing_is_unpickled(setting: str, world: World) -> None:
    assert asked_to_unpickle(world, setting)


def test_no_setting_that_names_a_file_is_forgotten() -> None:
    named = {entry.name for command in COMMANDS.values() for entry in fields(command) if "Path" in str(entry.type)}
    assert named | {"config", "data"} == set(PICKLED)
