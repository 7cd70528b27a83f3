"""The order in which channels go, against all of them looked at one by one."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from rivalry import make_workload, problem_of
from torch import nn
from toys import macs, make_spec

from rlprune import registry
from rlprune.cost.budget import parse_budget
from rlprune.cost.projection import BudgetProjector
from rlprune.methods.allocators.fisher_global import one_after_another
from rlprune.methods.allocators.uniform import uniform


def test_by_hand() -> None:
    """The first channel of a costs 1 + 8, of b 8 + 8, of c 8 + 2 MACs of 152; 133 may stay."""
    pieces = [np.full(8, 9.0), np.full(8, 9.0), np.full(8, 9.0)]
    pieces[0][3], pieces[1][6], pieces[2][0] = 0.9, 1.5, 1.1
    # Per MAC 0.1, 0.094 and 0.11: b goes first, which leaves 136, and makes one of a cost 8 and one of c 9.
    # Then 0.9 / 8 = 0.1125 against 1.1 / 9 = 0.122: a goes, 128 are left, and with one of c for it 127 would be.
    assert macs(8, 7, 8) == 136
    assert macs(7, 7, 8) == 128
    assert one_after_another(pieces, make_spec({"macs": 133 / 152}).projector).tolist() == [7, 7, 8]
    assert one_after_another(pieces, make_spec({"macs": 136 / 152}).projector).tolist() == [8, 7, 8]


def brute_force(pieces: list[np.ndarray], cap: int) -> list[int]:
    """Every channel that is left is tried; MACs are a + a b + b c + 2 c."""
    left = [sorted(map(Fraction, piece)) for piece in pieces]
    while macs(*map(len, left)) > cap:
        tried = []
        for group in range(3):
            for score in left[group] if len(left[group]) > 1 else []:
                sizes = [len(scores) - (number == group) for number, scores in enumerate(left)]
                tried.append((score / (macs(*map(len, left)) - macs(*sizes)), group, score))
        _, group, score = min(tried)
        left[group].remove(score)
    return [len(scores) for scores in left]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("cap", [12, 40, 76, 120, 152])
def test_against_all_channels_one_by_one(cap: int, seed: int) -> None:
    pieces = list(np.random.default_rng(seed).gamma(0.3, size=(3, 8)))
    projector = make_spec({"macs": cap / 152}).projector
    expected = projector.fill(np.array([brute_force(pieces, cap)]))[0]
    assert one_after_another(pieces, projector).tolist() == expected.tolist()


def test_multiples_go_at_once() -> None:
    """Four channels of 8 that matter nothing, with four that matter all, and seven that matter little with one."""
    spread, lumped = np.array([0, 0, 0, 0, 5, 5, 5, 5.0]), np.array([1, 1, 1, 1, 1, 1, 1, 0.9])
    projector = BudgetProjector(make_workload().cost, parse_budget(0.9), round_to=4)
    # The four of the first group that go for nothing save 4 + 32.
    assert one_after_another([spread, lumped, lumped], projector).tolist() == [4, 8, 8]


@pytest.mark.parametrize("budget", ["0.1", "params=0.5"])
def test_the_budget_is_met_and_nothing_is_left_of_it(network: nn.Module, budget: str) -> None:
    problem = problem_of(network, torch.zeros(1, 3, 32, 32), budget)
    graph, cost, limits = problem.workload.graph, problem.projector.cost, problem.projector.budget.fractions()
    scores = np.random.default_rng(0).gamma(0.3, size=graph.sizes.sum())
    counts = one_after_another(graph.split(scores), problem.projector)
    assert (cost.ratios(counts) <= limits).all()
    grown = counts + np.eye(len(counts), dtype=int)[counts < graph.sizes]
    assert not (cost.ratios(grown) <= limits).all(axis=1).any()


def test_what_does_not_matter_goes_whatever_it_costs() -> None:
    """Two groups of dead channels, which the least of another one outlives."""
    pieces = [np.append(np.zeros(7), 1.0), np.linspace(0.1, 1, 8), np.append(np.zeros(7), 1.0)]
    assert one_after_another(pieces, make_spec({"macs": 19 / 152}).projector).tolist() == [1, 8, 1]


def test_an_end_to_end_run() -> None:
    """The information by the definition: a mask of a channel's output, its derivative for each image, squared."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 7, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(7, 3),
    )  # fmt: skip
    images, labels = torch.randn(10, 3, 1, 1), torch.randint(3, (10,))
    problem = problem_of(net, images[:1], 0.4, batch=(images, labels))
    found = registry.make("allocator", "fisher-global").allocate(problem)
    sums = [torch.zeros(size) for size in (8, 6, 7)]
    for image, label in zip(images, labels, strict=True):
        masks = [torch.ones(size, 1, 1, requires_grad=True) for size in (8, 6, 7)]
        features = image[None]
        for number, layer in enumerate(net):
            features = layer(features)
            if number in (1, 3, 5):
                features = features * masks[number // 2]
        loss = nn.functional.cross_entropy(features, label[None])
        for total, gradient in zip(sums, torch.autograd.grad(loss, masks), strict=True):
            total += gradient.ravel() ** 2
    left = [sorted(total.tolist()) for total in sums]

    def cost(a: int, b: int, c: int) -> int:
        return 3 * a + a * b + b * c + 3 * c

    while (now := cost(*map(len, left))) > 0.4 * cost(8, 6, 7):
        less = [cost(*(len(one) - (number == group) for number, one in enumerate(left))) for group in range(3)]
        left[np.argmin([left[group][0] / (now - less[group]) for group in range(3)])].pop(0)
    expected = problem.projector.fill(np.array([[len(one) for one in left]]))[0]
    assert found.counts.tolist() == expected.tolist() != uniform(problem.projector).tolist()
    assert len(problem.seen) == 1
