"""Rounds measure nothing twice, end where nothing is left, and keep to one thread."""

from collections.abc import Sequence

import numpy as np
import torch
from threadpoolctl import threadpool_info
from toys import foretell, losses, macs, make_spec

from rlprune.agents.algorithms.ppo import PPO
from rlprune.agents.search.archive import Target
from rlprune.agents.search.engine import search
from rlprune.agents.search.rounds import one_thread


def test_measures_no_plan_twice_and_no_more_than_allowed() -> None:
    seen: list[tuple[int, ...]] = []

    def measure(plans: Sequence[np.ndarray]) -> list[float]:
        seen.extend(tuple(counts.tolist()) for counts in plans)
        return losses(plans)

    search([Target([make_spec()], measure, foretell)], 25, PPO())
    assert len(seen) == len(set(seen)) == 25


def test_ends_where_fewer_plans_exist_than_it_may_measure() -> None:
    """At this bound only a handful of plans land."""
    found = search([Target([make_spec("macs=0.05")], losses, foretell)], 40, PPO())
    assert macs(*found.counts[0]) <= 0.05 * 152


def test_agents_and_models_work_in_one_thread() -> None:
    """A second one waits for others where they keep the cores busy; afterwards all is as it was."""

    def threads() -> list[int]:
        np.linalg.cholesky(np.eye(2))
        return [
            torch.get_num_threads(),
            *(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"),
        ]

    before = threads()
    with one_thread():
        assert set(threads()) == {1}
    assert threads() == before
