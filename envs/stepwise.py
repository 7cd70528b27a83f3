"""A forward pass that stops before every gated layer until it is told how much of it to keep."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Queue
from typing import Any

import torch
from torch import Tensor

from rlprune.gating.gate import Decide, KeepRatios

Asked = tuple[int, Tensor, Tensor]
"""Number of a gate, pooled features, importance."""


class PausedForward:
    """Turns a pass that calls back into steps, whatever the network's forward is made of.

    The pass runs in a thread of its own, and always only one of the two threads does. It is the same thread for all
    passes, since every thread that computes gets helpers of its own.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._asked: Queue[Asked | None] = Queue()
        self._told: Queue[KeepRatios | None] = Queue()
        self._pass: Future[Tensor] | None = None

    def start(self, forward: Callable[[Decide], Tensor]) -> Asked | None:
        """Run until the first gate asks; None where it is over already."""
        self.stop()
        self._pool = self._pool or ThreadPoolExecutor(1)
        self._pass = self._pool.submit(self._run, forward)
        return self._wait()

    def tell(self, keeps: KeepRatios) -> Asked | None:
        """Answer, and run on until the next gate asks; None when the pass is over.

        Raises:
            ValueError: no gate is waiting for an answer.
        """
        if self._pass is None or self._pass.done():
            raise ValueError("no forward pass is waiting: call reset() before step()")
        self._told.put(keeps)
        return self._wait()

    def result(self) -> Tensor:
        """What the pass has returned."""
        assert self._pass is not None
        return self._pass.result()

    def stop(self) -> None:
        """Give up a pass that is under way."""
        if self._pass is not None and not self._pass.done():
            self._told.put(None)
            self._pass.exception()
            self._asked.get()

    def close(self) -> None:
        """Give up what is under way, and release the thread."""
        self.stop()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _wait(self) -> Asked | None:
        asked = self._asked.get()
        if asked is None:
            # Whatever went wrong over there is told here.
            self.result()
        return asked

    def _run(self, forward: Callable[[Decide], Tensor]) -> Tensor:
        try:
            with torch.no_grad():
                return forward(self._ask)
        finally:
            self._asked.put(None)

    def _ask(self, *asked: Any) -> KeepRatios:
        self._asked.put(asked)
        keeps = self._told.get()
        if keeps is None:
            raise GivenUpError
        return keeps


class GivenUpError(Exception):
    """A pass that nobody waits for any more."""
