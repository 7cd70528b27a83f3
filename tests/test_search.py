"""The search finds the optimum of a problem where it is known by brute force."""

import itertools
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info
from toys import macs, make_short_task, make_task

import rlprune.agents.search as module
from rlprune.agents.agents import AGENTS
from rlprune.agents.level import Target
from rlprune.agents.rollout import greedy, rollout
from rlprune.agents.search import Tuning, search
from rlprune.budget import Lander


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WALKS", 64)
    monkeypatch.setattr(module, "PICKS", 4)


def loss(counts: np.ndarray) -> float:
    """The first group matters most, the last least; with an interaction."""
    a, b, c = counts / 8
    return float(1.0 / a + 0.3 / b + 0.05 / c + 0.2 * abs(a - b))


def losses(plans: Sequence[np.ndarray]) -> list[float]:
    return [loss(counts) for counts in plans]


def foretell(keep: np.ndarray) -> np.ndarray:
    """What the groups cost one by one, without the interaction."""
    return (np.array([1.0, 0.3, 0.05]) * (1 / keep - 1)).sum(axis=-1)


def optimum(budget: int = 76) -> float:
    plans = itertools.product(range(1, 9), repeat=3)
    return min(loss(np.array(plan)) for plan in plans if macs(*plan) <= budget)


def test_finds_the_known_optimum() -> None:
    """512 plans are possible; the search may measure 45 and starts from the uniform one."""
    found = search([Target([make_task()], losses, foretell)], 45)
    assert found.losses[0] == pytest.approx(optimum())
    assert macs(*found.counts[0]) <= 76


def test_one_search_finds_the_optimum_under_every_budget() -> None:
    """45 and 90 of the 152 MACs, with one policy that ends on both plans without exploring."""
    tasks = [make_task(f"macs={bound / 152}") for bound in (45, 90)]
    found = search([Target(tasks, losses, foretell)], 80)
    assert found.losses == pytest.approx([optimum(45), optimum(90)])
    for task, bound in zip(tasks, (45, 90), strict=True):
        assert macs(*rollout(greedy(found.agent), task, 1)[1][0]) <= bound
        assert loss(rollout(greedy(found.agent), task, 1)[1][0]) < loss(task.finish(task.base[None])[0])


@pytest.mark.parametrize("agent", ["ppo", "sac"])
def test_one_search_finds_the_optimum_of_every_network(agent: str) -> None:
    """One of three groups, and one of two; 64 plans of that are possible."""
    short = make_short_task()

    def short_loss(counts: np.ndarray) -> float:
        return float(0.4 / counts[0] + 3.0 / counts[1])

    targets = [
        Target([make_task()], losses, foretell),
        Target(
            [short],
            lambda plans: [short_loss(counts) for counts in plans],
            lambda keep: (np.array([0.05, 0.375]) * (1 / keep - 1)).sum(axis=-1),
        ),
    ]
    found = search(targets, 70, agent)
    assert found.losses[0] == pytest.approx(optimum(), rel=0.01)
    plans = [np.array(plan) for plan in itertools.product(range(1, 9), repeat=2)]
    best = min(short_loss(plan) for plan in plans if short.lander.fits(plan[None])[0])
    assert found.losses[1] == pytest.approx(best)
    assert [len(counts) for counts in found.counts] == [3, 2]


@pytest.mark.parametrize("agent", AGENTS)
def test_every_agent_improves_on_the_base_plan(agent: str) -> None:
    task = make_task()
    base = task.finish(task.base[None])[0]
    found = search([Target([task], losses, foretell, [(base,)])], 30, agent)
    assert found.losses[0] < loss(base)


def test_a_forecast_cost_is_corrected_on_the_way() -> None:
    """What is allowed shrinks from 76 to 60 MACs at the first look; what was measured before may be above that."""
    task, asked = make_task(), list[list[int]]()
    tight = make_task(f"macs={60 / 152}").lander

    def correct(counts: np.ndarray) -> Lander:
        asked.append(counts.tolist())
        return tight

    found = search([Target([task], losses, foretell, correct=correct)], 60)
    assert len(asked) == len(module.CHECKS)
    assert macs(*asked[0]) > 60
    assert all(macs(*counts) <= 60 for counts in asked[1:])
    assert found.losses[0] == pytest.approx(optimum(60))


def test_only_what_the_corrected_cost_admits_is_tuned() -> None:
    task, tuned = make_task(), list[np.ndarray]()
    tight = make_task(f"macs={60 / 152}").lander

    def tune(plans: Sequence[np.ndarray]) -> list[float]:
        tuned.extend(plans)
        return losses(plans)

    target = Target([task], losses, foretell, correct=lambda counts: tight)
    found = search([target], 30, tuning=Tuning([tune], 6, [task.base_plan()]))
    assert macs(*task.base_plan()) > 60
    assert all(macs(*counts) <= 60 for counts in [*tuned, *found.counts])


def test_too_few_evaluations_for_a_correction() -> None:
    task = make_task()
    found = search([Target([task], losses, foretell, [(task.base_plan(),)], lambda counts: task.lander)], 1)
    assert found.counts[0].tolist() == task.base_plan().tolist()


@pytest.mark.parametrize("agent", ["ppo", "sac"])
def test_same_seed_same_walk(agent: str) -> None:
    def measured(seed: int) -> list[tuple[int, ...]]:
        seen: list[tuple[int, ...]] = []

        def measure(plans: Sequence[np.ndarray]) -> list[float]:
            seen.extend(tuple(counts.tolist()) for counts in plans)
            return losses(plans)

        search([Target([make_task()], measure, foretell)], 16, agent, seed)
        return seen

    assert measured(1) == measured(1)
    assert measured(1) != measured(2)


def test_measures_no_plan_twice_and_no_more_than_allowed() -> None:
    seen: list[tuple[int, ...]] = []

    def measure(plans: Sequence[np.ndarray]) -> list[float]:
        seen.extend(tuple(counts.tolist()) for counts in plans)
        return losses(plans)

    search([Target([make_task()], measure, foretell)], 25)
    assert len(seen) == len(set(seen)) == 25


def test_ends_where_fewer_plans_exist_than_it_may_measure() -> None:
    """At this bound only a handful of plans land."""
    found = search([Target([make_task("macs=0.05")], losses, foretell)], 40)
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
    with module.one_thread():
        assert set(threads()) == {1}
    assert threads() == before


def test_every_budget_gets_its_starts_first() -> None:
    """No more evaluations than plans to start from: nothing is left for scouts or walks."""
    tasks = [make_task(f"macs={bound}") for bound in (0.3, 0.5, 0.7)]
    starts = [(task.finish(task.base[None])[0],) for task in tasks]
    found = search([Target(tasks, losses, foretell, starts)], 3)
    assert [counts.tolist() for counts in found.counts] == [plans[0].tolist() for plans in starts]


def tuned_loss(counts: np.ndarray) -> float:
    """After a tuning the last group matters most, which the one-shot loss does not see."""
    a, b, c = counts / 8
    return float(0.3 / a + 0.3 / b + 1.0 / c)


def test_with_tunings_the_search_is_for_what_they_leave() -> None:
    """512 plans are possible; 16 are tuned. The best under the one-shot loss is not among the best after a tuning."""
    task = make_task()
    base = task.finish(task.base[None])[0]
    tuned: list[tuple[int, ...]] = []

    def tune(plans: Sequence[np.ndarray]) -> list[float]:
        tuned.extend(tuple(counts.tolist()) for counts in plans)
        return [tuned_loss(counts) for counts in plans]

    found = search([Target([task], losses, foretell, [(base,)])], 30, tuning=Tuning([tune], 16, [base]))
    assert tuned[0] == tuple(base)
    assert len(tuned) == len(set(tuned)) == 16
    plans = [np.array(plan) for plan in itertools.product(range(1, 9), repeat=3) if macs(*plan) <= 76]
    ranks = sorted(map(tuned_loss, plans))
    assert found.losses[0] == pytest.approx(tuned_loss(found.counts[0]))
    assert found.losses[0] <= ranks[4]
    oneshot = min(plans, key=loss)
    assert found.losses[0] < tuned_loss(oneshot)


def test_ever_fewer_plans_are_tuned_for_longer() -> None:
    """Those that are tuned for longer begin with the base plan and the best; what counts in the end is the longest."""
    task, tuned = make_task(), [list[tuple[int, ...]]() for _ in range(3)]
    base = task.finish(task.base[None])[0]

    def measure(place: int, plans: Sequence[np.ndarray]) -> list[float]:
        tuned[place] += [tuple(counts.tolist()) for counts in plans]
        return [tuned_loss(counts) + 0.3 * place * abs(counts[0] - counts[1]) / 8 - place for counts in plans]

    measures = [partial(measure, place) for place in range(3)]
    found = search([Target([task], losses, foretell, [(base,)])], 30, tuning=Tuning(measures, 20, [base]))
    assert [len(plans) for plans in tuned] == [20, 10, 5]
    assert all(len(plans) == len(set(plans)) for plans in tuned)
    assert {plans[0] for plans in tuned} == {tuple(base)}
    assert len(set(tuned[0]) & set(tuned[1])) >= 5
    assert tuple(found.counts[0]) in tuned[2]
    assert found.losses == measure(2, found.counts)
    briefly = min(tuned[0], key=lambda counts: tuned_loss(np.array(counts)))
    assert briefly in tuned[1]
    assert found.losses[0] <= measure(2, [base])[0]


def test_a_time_limit_ends_both_parts() -> None:
    task = make_task()
    base = task.finish(task.base[None])[0]
    asked: list[float] = []

    def over(share: float) -> bool:
        asked.append(share)
        return True

    measures = [lambda plans: [tuned_loss(counts) for counts in plans]] * 2
    tuning = Tuning(measures, 16, [base])
    found = search([Target([task], losses, foretell, [(base,)])], 30, tuning=tuning, over=over)
    assert found.counts[0].tolist() == base.tolist()  # the one plan that is tuned in any case
    assert asked[0] == module.FIRST_SHARE
    # The brief ones get a third of the time that is left, the longer ones the rest.
    assert set(asked[1:]) == {module.FIRST_SHARE + (1 - module.FIRST_SHARE) / 3}
