"""A network small enough to walk by hand."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from rlprune.cost.budget import parse_budget
from rlprune.cost.exact import build_cost
from rlprune.cost.projection import BudgetProjector
from rlprune.envs.episode import EpisodeSpec
from rlprune.envs.observation import DYNAMIC, Features
from rlprune.tracing.build import build_graph


def make_spec(budget: str | None = "macs=0.5", base: tuple[float, ...] = (8, 8, 8), **more: object) -> EpisodeSpec:
    """Three 1x1 convolutions of 8 channels on a 1x1 image and a classifier: MACs = 1 a + a b + b c + 2 c."""
    net = nn.Sequential(
        nn.Conv2d(1, 8, 1),
        nn.Conv2d(8, 8, 1),
        nn.Conv2d(8, 8, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    )
    projector = BudgetProjector(build_cost(build_graph(net, torch.zeros(1, 1, 1, 1))), parse_budget(budget))
    names = ("nothing", *(f"dynamic_{i}" for i in range(DYNAMIC)))
    features = Features(np.zeros((3, 1)), names, np.zeros((2, 3, 3)))
    settings = {"weights": np.zeros(2), **more}
    return EpisodeSpec(projector, features, np.array(base), -1.0, **settings)  # type: ignore[arg-type]


def make_short_spec(budget: str | None = "macs=0.5") -> EpisodeSpec:
    """Two 1x1 convolutions of 8 channels and a classifier: MACs = 1 a + a b + 2 b."""
    layers = [nn.Conv2d(1, 8, 1), nn.Conv2d(8, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)]
    projector = BudgetProjector(
        build_cost(build_graph(nn.Sequential(*layers), torch.zeros(1, 1, 1, 1))), parse_budget(budget)
    )
    names = ("nothing", *(f"dynamic_{i}" for i in range(DYNAMIC)))
    features = Features(np.ones((2, 1)), names, np.zeros((2, 2, 2)))
    return EpisodeSpec(projector, features, np.array([8.0, 8.0]), -1.0, np.zeros(2))


def macs(a: int, b: int, c: int) -> int:
    return a + a * b + b * c + 2 * c


def score(counts: np.ndarray) -> np.ndarray:
    """A loss for every plan: the more channels the lower."""
    return 1 / counts.sum(axis=1)


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
