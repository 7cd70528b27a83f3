"""Kept slices against every possible choice, one by one."""

import itertools

import numpy as np
import pytest
import torch

from rlprune.methods.units import base_slices
from rlprune.methods.units.base_slices import SliceOrders, greedy_orders, selection_costs


def by_hand(distances: np.ndarray, kept: tuple[int, ...]) -> float:
    """The cost of a choice as the paper has it, of similarities, one pair after the other."""
    alike = 1 - distances
    pairs = [alike[a, b] for a, b in itertools.combinations(kept, 2)]
    gone = [slice for slice in range(len(alike)) if slice not in kept]
    number = max(1, len(kept) // 5)
    best = [np.mean(sorted((alike[other, slice] for other in kept), reverse=True)[:number]) for slice in gone]
    return float(np.mean(pairs) - np.mean(best))


def grown(distances: np.ndarray, first: int, count: int) -> tuple[int, ...]:
    """What grows from a first slice."""
    kept = [first]
    while len(kept) < count:
        others = [slice for slice in range(len(distances)) if slice not in kept]
        kept.append(min(others, key=lambda slice: sum(1 - distances[slice, other] for other in kept)))
    return tuple(sorted(kept))


def weights(seed: int, inputs: int) -> torch.Tensor:
    return torch.randn(3, inputs, 3, 3, generator=torch.Generator().manual_seed(seed))


def far(values: torch.Tensor) -> np.ndarray:
    slices = values.numpy().swapaxes(0, 1).reshape(values.shape[1], -1).astype(float)
    return np.array([[np.linalg.norm(a - b) for b in slices] for a in slices])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [2, 3, 6])
def test_the_best_of_what_grows_from_every_first_slice_stays(seed: int, count: int) -> None:
    given = weights(seed, 9)
    distances = far(given)
    choices = {grown(distances, first, count) for first in range(9)}
    found = SliceOrders(given).kept(count)
    assert found == min(choices, key=lambda kept: by_hand(distances, kept))
    # It need not be the best of all, but is far better than most.
    every = sorted(by_hand(distances, kept) for kept in itertools.combinations(range(9), count))
    assert every[0] - 1e-6 <= by_hand(distances, found) <= every[len(every) // 10]


def test_costs_are_those_of_the_paper() -> None:
    given = weights(5, 12)
    distances = torch.from_numpy(far(given))
    kept = torch.tensor([[0, 3, 4, 7, 8, 9, 10, 11, 1, 2], [5, 1, 2, 9, 10, 11, 0, 3, 4, 6]])
    apart = torch.tensor([sum(distances[a, b] for a, b in itertools.combinations(row.tolist(), 2)) for row in kept])
    expected = [by_hand(distances.numpy(), tuple(row.tolist())) for row in kept]
    assert selection_costs(distances, kept, apart).tolist() == pytest.approx(expected)
    order, sums = greedy_orders(distances, torch.arange(12))
    for row, total in zip(order, sums, strict=True):
        assert sorted(row.tolist()) == list(range(12))
        assert float(total[4]) == pytest.approx(
            sum(float(distances[a, b]) for a, b in itertools.combinations(row[:5].tolist(), 2))
        )


def test_of_equal_slices_one_stays() -> None:
    given = weights(1, 3).repeat_interleave(4, dim=1)
    found = SliceOrders(given).kept(3)
    assert [slice // 4 for slice in found] == [0, 1, 2]


def test_one_slice_is_the_one_nearest_to_all() -> None:
    given = weights(2, 7)
    assert SliceOrders(given).kept(1) == (int(far(given).sum(0).argmin()),)
    assert SliceOrders(given).kept(7) == tuple(range(7))


def test_memory_and_fewer_first_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    given = weights(3, 20)
    expected = SliceOrders(given).kept(6)
    monkeypatch.setattr(base_slices, "AT_ONCE", 1)
    assert SliceOrders(given).kept(6) == expected
    monkeypatch.setattr(base_slices, "WORK", 5 * 20**2)
    orders = SliceOrders(given)
    assert len(orders.orders) == 5
    ranked = far(given).sum(0).argsort()
    assert {int(ranked[0]), int(ranked[-1])} <= set(orders.orders[:, 0].tolist())
    distances = far(given)
    choices = {grown(distances, first, 6) for first in orders.orders[:, 0].tolist()}
    assert orders.kept(6) == min(choices, key=lambda kept: by_hand(distances, kept))
