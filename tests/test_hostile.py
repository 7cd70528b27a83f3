"""Every line of the second table of docs/reliability.md."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults import Fault
from hostile import FAULTS, World, make_world, small_searches


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with small_searches():
        yield make_world(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_it_works_or_says_what_is_wrong(fault: Callable[[World], Fault], world: World) -> None:
    said = fault(world)
    page = (Path(__file__).parent.parent / "docs" / "reliability.md").read_text()
    assert f"| {' | '.join(said)} |" in page, "python scripts/hostile.py writes it"
