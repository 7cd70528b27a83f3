"""How much of every gated layer runs: what the agent's actions come to, projected onto the budget.

Actions are those of Chen, Chen & Pan (NeurIPS 2020) in the formulation of this package: residuals on the even plan, so
that doing nothing keeps the same ratio of every layer and meets the budget.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.gating.gate import KeepRatios, plain
from rlprune.gating.layout import LEAST, Layout
from rlprune.gating.policy import KeepPolicy, RecurrentState

REACH = math.log(2)
"""An action of ±1 doubles or halves a keep ratio."""
SPREAD = 0.25
"""Part of the images of a training batch that get another budget than the one that is asked for."""


def to_keep(even: np.ndarray, action: np.ndarray, shift: np.ndarray | float = 0.0) -> np.ndarray:
    """The keep ratio an action asks for: the even one times exp(REACH * action + shift), within [LEAST, 1]."""
    asked = even * np.exp(REACH * np.clip(action, -1, 1) + shift)
    kept: np.ndarray = np.minimum(np.maximum(asked, lowest_ratio(even)), 1)
    return kept


def lowest_ratio(even: Any) -> Any:
    """The least a layer runs with, given the even keep ratio."""
    return np.minimum(even, LEAST) if isinstance(even, np.ndarray) else min(even, LEAST)


class Walk:
    """Where the walk of a batch of images stands; numbers of NumPy, which for one image is faster than tensors.

    Args:
        layout: of the network.
        budget: (images,) MACs ratios.
        shift: added to the logarithm of every keep ratio.

    Attributes:
        memory: what the policy remembers of it.
    """

    def __init__(self, layout: Layout, budget: np.ndarray, shift: np.ndarray | float = 0.0) -> None:
        self.budget, self.shift, self.even = budget, shift, layout.even(budget)
        self.shares, self.beyond = layout.shares, np.zeros_like(self.even)
        self.memory: RecurrentState[np.ndarray] | None = None

    def context(self) -> np.ndarray:
        """(images, CONTEXT) float32."""
        return np.array([self.even, self.beyond, self.budget], dtype=np.float32).T

    def take(self, number: int, action: np.ndarray) -> np.ndarray:
        """(images,) keep ratios that these actions lead to."""
        keep = to_keep(self.even, action, self.shift)
        self.beyond = self.beyond + self.shares[number] * (keep - self.even) / self.budget
        return keep


class KeepController(nn.Module):
    """Decides how much of every layer runs for an image, and can be told another budget while it is in use.

    Args:
        layout: of the network.
        static: (gates,) the static agent's keep ratios.
        acts: whether there is a policy; without one every layer keeps the even ratio.
        points: budgets at which shifts are known.
        recurrent: whether the policy remembers; see `rlprune.gating.policy`.

    Attributes:
        budget: MACs ratio that is aimed at.
        spread: budgets that some of the images get while training, for the network to know them.
        budgets, shifts: (points,) what is added to the logarithm of the keep ratios, so that the mean over images meets
            the budget; measured once it is trained.
    """

    static: Tensor
    budgets: Tensor
    shifts: Tensor

    def __init__(self, layout: Layout, static: Tensor, acts: bool, points: int = 1, recurrent: bool = False) -> None:
        super().__init__()
        self.layout = layout
        self.policy = KeepPolicy(layout.inputs, layout.channels, recurrent) if acts else None
        self.budget = 1.0
        self.spread: tuple[float, float] | None = None
        self.register_buffer("static", static.double())
        self.register_buffer("budgets", torch.ones(points, dtype=torch.float64))
        self.register_buffer("shifts", torch.zeros(points, dtype=torch.float64))
        self._walk: Walk | None = None
        self.requires_grad_(False)

    def _apply(self, *_: Any, **__: Any) -> "KeepController":
        """It stays on the CPU and in its precision, wherever the network goes: it decides with NumPy."""
        return self

    def forward(self, number: int, pooled: Tensor, importance: Tensor) -> KeepRatios:
        """See `rlprune.gating.gate.Decide`."""
        with torch.no_grad():
            if number == 0 or self._walk is None:
                self._walk = self._start(pooled)
            walk, action = self._walk, np.zeros(len(pooled))
            if self.policy is not None:
                seen = (plain(pooled), plain(importance), walk.context())
                action, walk.memory = self.policy.act(number, *seen, walk.memory)
            return KeepRatios(walk.take(number, action), np.repeat(self.static.numpy()[number], len(pooled)))

    def _start(self, pooled: Tensor) -> Walk:
        images = len(pooled)
        budget = np.full(images, self.budget, dtype=float)
        if self.training and self.spread:
            low, high = self.spread
            drawn, chance = torch.rand(2, images).double().numpy()
            budget = np.where(chance < SPREAD, low + (high - low) * drawn, budget)
        return Walk(self.layout, budget, np.interp(budget, self.budgets.numpy(), self.shifts.numpy()))
