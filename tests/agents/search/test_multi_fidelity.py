"""With tunings the search is for what fine-tuning leaves, of a workload where that is known by brute force."""

import itertools
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
from toys import foretell, loss, losses, macs, make_spec

from rlprune.agents.algorithms.ppo import PPO
from rlprune.agents.search.archive import Target
from rlprune.agents.search.engine import search
from rlprune.agents.search.multi_fidelity import FIRST_SHARE, Tuning


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlprune.agents.search.rounds.WALKS", 64)


def tuned_loss(counts: np.ndarray) -> float:
    """After a tuning the last group matters most, which the one-shot loss does not see."""
    a, b, c = counts / 8
    return float(0.3 / a + 0.3 / b + 1.0 / c)


def test_only_what_the_corrected_cost_admits_is_tuned() -> None:
    spec, tuned = make_spec(), list[np.ndarray]()
    tight = make_spec(f"macs={60 / 152}").projector

    def tune(plans: Sequence[np.ndarray]) -> list[float]:
        tuned.extend(plans)
        return losses(plans)

    target = Target([spec], losses, foretell, correct=lambda counts: tight)
    found = search([target], 30, PPO(), tuning=Tuning([tune], 6, [spec.base_plan()]))
    assert macs(*spec.base_plan()) > 60
    assert all(macs(*counts) <= 60 for counts in [*tuned, *found.counts])


def test_with_tunings_the_search_is_for_what_they_leave() -> None:
    """512 plans are possible; 16 are tuned. The best under the one-shot loss is not among the best after a tuning."""
    spec = make_spec()
    base = spec.finish(spec.base[None])[0]
    tuned: list[tuple[int, ...]] = []

    def tune(plans: Sequence[np.ndarray]) -> list[float]:
        tuned.extend(tuple(counts.tolist()) for counts in plans)
        return [tuned_loss(counts) for counts in plans]

    found = search([Target([spec], losses, foretell, [(base,)])], 30, PPO(), tuning=Tuning([tune], 16, [base]))
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
    spec, tuned = make_spec(), [list[tuple[int, ...]]() for _ in range(3)]
    base = spec.finish(spec.base[None])[0]

    def measure(place: int, plans: Sequence[np.ndarray]) -> list[float]:
        tuned[place] += [tuple(counts.tolist()) for counts in plans]
        return [tuned_loss(counts) + 0.3 * place * abs(counts[0] - counts[1]) / 8 - place for counts in plans]

    measures = [partial(measure, place) for place in range(3)]
    found = search([Target([spec], losses, foretell, [(base,)])], 30, PPO(), tuning=Tuning(measures, 20, [base]))
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
    spec = make_spec()
    base = spec.finish(spec.base[None])[0]
    asked, tuned = list[float](), list[list[np.ndarray]]()

    def over(share: float) -> bool:
        asked.append(share)
        return True

    def tune(plans: Sequence[np.ndarray]) -> list[float]:
        tuned.append(list(plans))
        return [tuned_loss(counts) for counts in plans]

    tuning = Tuning([tune, tune], 16, [base])
    found = search([Target([spec], losses, foretell, [(base,)])], 30, PPO(), tuning=tuning, over=over)
    assert sum(map(len, tuned)) == 2  # the base plan, and the best one-shot plan
    assert tuned[0][0].tolist() == base.tolist()
    assert found.losses[0] == min(map(tuned_loss, tuned[0]))
    assert asked[0] == FIRST_SHARE
    # The brief ones get a third of the time that is left, the longer ones the rest.
    assert set(asked[1:]) == {FIRST_SHARE + (1 - FIRST_SHARE) / 3}
