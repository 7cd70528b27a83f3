"""A contest on a loss that is known in closed form."""

import math
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from rlprune.cost.budget import parse_budget
from rlprune.cost.exact import build_cost
from rlprune.cost.projection import BudgetProjector
from rlprune.evaluation.evaluator import Evaluator
from rlprune.evaluation.metered import AllocationProblem, EvaluationCache
from rlprune.methods.criteria.base import score_channels
from rlprune.tasks.base import Evaluation
from rlprune.tracing.build import build_graph

Loss = Callable[[np.ndarray], float]


class Known(Evaluator):
    """Scores plans by a formula and counts how often it has to."""

    def __init__(self, loss: Loss, scores: np.ndarray) -> None:
        self.loss, self.scores, self.calls = loss, scores, 0
        self.runner = self.images = self.labels = None  # type: ignore[assignment]
        self.seen = {}

    def __call__(self, counts: np.ndarray) -> Evaluation:
        key = tuple(int(count) for count in counts)
        if key not in self.seen:
            self.calls += 1
            loss = self.loss(np.asarray(counts))
            self.seen[key] = Evaluation(loss, math.exp(-loss))
        return self.seen[key]


def make_cache(loss: Loss, groups: int = 3, width: int = 8) -> EvaluationCache:
    """Measures by a formula; the scores of the channels are drawn."""
    known = Known(loss, np.random.default_rng(0).random(groups * width))
    return EvaluationCache(known, score=scoring(make_workload(groups, width)))


def make_problem(
    method: str,
    loss: Loss,
    evaluations: int,
    *,
    seed: int = 0,
    budget: str = "macs=0.5",
    groups: int = 3,
    width: int = 8,
    cache: EvaluationCache | None = None,
    norms: bool = False,
) -> AllocationProblem:
    """What a method gets to see, on a known loss; `norms` adds batch norms, which cost no MACs."""
    workload = make_workload(groups, width, norms)
    projector = BudgetProjector(workload.cost, parse_budget(budget))
    return AllocationProblem(cache or make_cache(loss, groups, width), workload, projector, method, seed, evaluations)


def problem_of(
    net: nn.Module,
    example: torch.Tensor,
    budget: Any,
    *,
    scores: np.ndarray | None = None,
    batch: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> AllocationProblem:
    """What a method gets to see of a network, where the loss of every plan is the share of channels that go.

    Args:
        net: in eval mode.
        example: an input.
        budget: as `parse_budget` reads it.
        scores: (all groups' channels,) of the criterion; of no account by default.
        batch: calibration images and labels; the example and a label 0 by default.
    """
    graph = build_graph(net.eval(), example)
    cost = build_cost(graph)
    images, labels = batch or (example, torch.zeros(len(example), dtype=torch.long))
    workload: Any = SimpleNamespace(module=net, graph=graph, cost=cost, calibration=lambda: (images, labels))
    known = Known(
        lambda counts: 1 - counts.sum() / graph.sizes.sum(), np.zeros(graph.sizes.sum()) if scores is None else scores
    )
    cache = EvaluationCache(known, score=scoring(workload))
    return AllocationProblem(cache, workload, BudgetProjector(cost, parse_budget(budget)), "method", 0, 99)


def scoring(workload: Any) -> Callable[[str], np.ndarray]:
    """Criterion -> scores of the network's channels."""
    return lambda name: score_channels(name, workload.module, workload.graph, workload.calibration())


@cache
def make_workload(groups: int = 3, width: int = 8, norms: bool = False) -> Any:
    """A chain of 1x1 convolutions of `width` channels; for three of 8 it is the toy network of `toys.py`."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs in [1] + [width] * (groups - 1):
        layers.append(nn.Conv2d(inputs, width, 1))
        if norms:
            layers.append(nn.BatchNorm2d(width))
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2)).eval()
    graph = build_graph(net, torch.zeros(1, 1, 1, 1))
    images, labels = torch.randn(4, 1, 1, 1), torch.zeros(4, dtype=torch.long)
    data = SimpleNamespace(search=images, classes=["one", "other"])
    cost = build_cost(graph)
    return SimpleNamespace(module=net, graph=graph, cost=cost, data=data, calibration=lambda: (images, labels))


def cheap(counts: np.ndarray) -> float:
    """The first group matters most, the last least; with an interaction."""
    first, second, third = counts / 8
    return float(1.0 / first + 0.3 / second + 0.05 / third + 0.2 * abs(first - second))
