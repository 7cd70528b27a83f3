"""Members work side by side where that changes nothing."""

from collections.abc import Iterator
from threading import Barrier, get_ident

import pytest
import torch

from rlprune.training.parallel import WORKERS, in_turn, side_by_side

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_as_many_at_once_as_there_are_threads(threads: int) -> None:
    barrier = Barrier(threads)
    with side_by_side(CPU) as run:
        run(lambda member: None, range(threads))
        # None gets past it before all are there.
        run(lambda member: barrier.wait(timeout=60), range(threads))


def test_each_has_its_share_of_the_threads_and_this_one_keeps_its_own(threads: int) -> None:
    shares: list[int] = []
    with side_by_side(CPU) as run:
        for _ in range(2):
            run(lambda member: shares.append(torch.get_num_threads()), range(5))
        assert torch.get_num_threads() == threads
    assert shares == [threads // min(threads, WORKERS)] * 10
    assert torch.get_num_threads() == threads


def test_what_draws_goes_in_turn(threads: int) -> None:
    """Each draw is the one that it would have been without any threads."""
    drawn: list[tuple[int, float]] = []
    with side_by_side(CPU) as run, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(20):
            run(lambda member: drawn.append((member, torch.rand(()).item())), range(4))
        torch.manual_seed(0)
        expected = [(member, torch.rand(()).item()) for _ in range(20) for member in range(4)]
    assert drawn == expected


def test_an_error_of_one_is_told() -> None:
    with side_by_side(CPU) as run:
        run(lambda member: None, range(2))
        with pytest.raises(ZeroDivisionError):
            run(lambda member: 1 / member, [1, 0, 2])


def test_other_devices_are_driven_by_this_thread() -> None:
    threads: list[int] = []
    with side_by_side(torch.device("cuda")) as run:
        assert run is in_turn
        run(lambda member: threads.append(get_ident()), range(3))
    assert set(threads) == {get_ident()}
