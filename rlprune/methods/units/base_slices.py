"""Which input slices of a group of filters stay: those that are least alike (Zhong et al., 2022, section 3.3).

From a first slice on the kept ones grow greedily by the one that is least similar to all of them; similarity is 1 less
the Euclidean distance. Of what grows from different first slices that is taken whose kept slices are least similar to
one another and most similar to those that go, which they stand for.
"""

import torch
from torch import Tensor

WORK, LEAST = 2**24, 4
"""First slices that are tried, times the square of how many slices there are, and how many are tried at least: all of
up to 256, and 64 of 512. The paper tries every one, which takes long in wide layers; where not all are tried they are
evenly spread from the slice that is nearest to all others to the one farthest from them."""
NEAREST = 5
"""A slice that goes is compared with one in so many of the kept ones, the nearest."""
AT_ONCE = 2**24
"""Distances that are held in memory."""


class SliceOrders:
    """The kept slices of a group of filters for any number of them.

    Args:
        weights: (filters, inputs, ...) of the group.
    """

    def __init__(self, weights: Tensor) -> None:
        flat = weights.detach().float().movedim(1, 0).flatten(1)
        self.distances = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(0)
        self.orders, self.apart = greedy_orders(self.distances, _starts(self.distances))

    def kept(self, count: int) -> tuple[int, ...]:
        """The slices that stay, ascending."""
        if count == len(self.distances):
            return tuple(range(count))
        costs = selection_costs(self.distances, self.orders[:, :count], self.apart[:, count - 1])
        best = self.orders[int(costs.argmin()), :count]
        return tuple(sorted(best.tolist()))


def _starts(distances: Tensor) -> Tensor:
    """(starts,) first slices, ascending: all where there are few."""
    number = len(distances)
    tried = min(number, max(LEAST, WORK // number**2))
    if tried == number:
        return torch.arange(number, device=distances.device)
    ranked = distances.sum(1).argsort(stable=True)
    places = torch.linspace(0, number - 1, tried, device=distances.device).round().long()
    return ranked[places].sort().values


def greedy_orders(distances: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Slices in the order in which they are kept, from each of some first slices.

    Args:
        distances: (slices, slices).
        starts: (starts,) first slices.

    Returns:
        (starts, slices) the order, of which any number of first ones can stay, and as many sums of the distances
        between the pairs of slices that are kept by then.
    """
    rows = torch.arange(len(starts), device=distances.device)
    order, sums, now = [starts], [torch.zeros_like(distances[starts, starts])], starts
    total = distances[starts].clone()
    for _ in range(len(distances) - 1):
        total[rows, now] = -torch.inf
        # What is kept stays at minus infinity whatever is added.
        farthest, now = total.max(dim=1)
        order.append(now)
        sums.append(sums[-1] + farthest)
        total += distances[now]
    return torch.stack(order, dim=1), torch.stack(sums, dim=1)


def selection_costs(distances: Tensor, kept: Tensor, apart: Tensor) -> Tensor:
    """(choices,) mean similarity of the pairs that stay less that of what goes to the nearest of what stays.

    Args:
        distances: (slices, slices).
        kept: (choices, slices that stay), fewer than there are.
        apart: (choices,) sums of the distances of the pairs that stay.
    """
    number, count = len(distances), kept.shape[1]
    nearest, pairs = max(1, count // NEAREST), max(1, count * (count - 1) // 2)
    lost = []
    for some in kept.split(max(1, AT_ONCE // (number * count))):
        between = distances[:, some]
        mine = between.topk(nearest, dim=2, largest=False).values.mean(2)
        # A slice that stays is no slice that goes.
        mine = mine.scatter(0, some.T, 0.0)
        lost.append(mine.sum(0) / (number - count))
    # The 1 of both similarities cancels out, but for a single slice, which makes no pair.
    return torch.cat(lost) - apart / pairs
