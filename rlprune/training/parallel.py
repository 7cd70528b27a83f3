"""Several networks at work at once: a narrow one alone leaves most of a CPU idle."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

WORKERS = 4
"""Networks side by side, at most."""
Work = Callable[[Any], object]
"""What is done to a member; what it returns is not looked at."""
Run = Callable[[Work, Iterable[Any]], None]


def in_turn(work: Work, members: Iterable[Any]) -> None:
    """Work on one after the other."""
    for member in members:
        work(member)


class SideBySide:
    """Works on several at once, unless that draws random numbers: all threads share one generator.

    Args:
        pool: runs them.
    """

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._draws = True

    def __call__(self, work: Work, members: Iterable[Any]) -> None:
        """Work on all of them; the first time in turn, to see whether numbers are drawn."""
        if not self._draws:
            list(self._pool.map(work, members))
            return
        before = torch.get_rng_state()
        in_turn(lambda member: self._pool.submit(work, member).result(), members)
        self._draws = not torch.equal(before, torch.get_rng_state())


@contextmanager
def side_by_side(device: torch.device) -> Iterator[Run]:
    """Gives what works on networks: side by side on a CPU, in turn on other devices.

    Each gets the same share of PyTorch's threads however many there are, so that a network ends the same in any
    company.

    Args:
        device: where the networks are.
    """
    if device.type != "cpu":
        yield in_turn
        return
    threads = torch.get_num_threads()
    workers = min(WORKERS, threads)
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads // workers,)) as pool:
        try:
            yield SideBySide(pool)
        finally:
            # The number is this thread's own, but some libraries have one for all threads.
            torch.set_num_threads(threads)
