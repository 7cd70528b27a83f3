"""A gated network in tensor operations alone, so that it can be exported: everything runs, and masks choose."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.gating.controller import REACH, lowest_ratio
from rlprune.gating.gate import Gate
from rlprune.gating.masks import kept_count, lowest, permanent
from rlprune.gating.policy import RecurrentState
from rlprune.gating.skipping import SkippingNetwork


def traceable(module: nn.Module) -> nn.Module:
    """A network as others can follow it: itself, or under masks where it skips channels image by image."""
    return MaskedNetwork(module).eval() if isinstance(module, SkippingNetwork) else module


class MaskedNetwork(nn.Module):
    """A skipping network at its present budget; gives the same logits and skips nothing.

    Args:
        skipping: the network, which is used while this one is.
    """

    def __init__(self, skipping: SkippingNetwork) -> None:
        super().__init__()
        self.gated = skipping.gated
        runtime = skipping.runtime
        self.beyond: Tensor | None = None
        self.memory: RecurrentState[Tensor] | None = None
        self.even = float(runtime.layout.even(runtime.budget))
        self.budget, self.shares = runtime.budget, runtime.layout.shares.tolist()
        self.shift = float(np.interp(runtime.budget, runtime.budgets.numpy(), runtime.shifts.numpy()))
        for number in range(len(self.gated.gates)):
            self._fix(number, self.gated.gate(number), float(runtime.static[number]))

    def _fix(self, number: int, gate: Gate, keep: float) -> None:
        """What is the same for every image becomes a constant."""
        assert gate.stays is None or len(gate.stays)
        scores = gate.static_scores().detach().numpy()[None]
        ratio = np.array([keep])
        unwanted = lowest(scores, scores.shape[1] - kept_count(ratio, scores.shape[1]))
        for name, mask in (("unwanted", unwanted), ("removed", permanent(scores, ratio, self.gated.mix))):
            self.register_buffer(f"{name}{number}", torch.from_numpy(mask))

    def forward(self, images: Tensor) -> Tensor:
        """(images, classes) logits."""
        self.gated.choose = self._choose
        try:
            logits: Tensor = self.gated(images)
        finally:
            # Whoever exports objects to what a pass leaves behind.
            self.gated.choose = self.beyond = self.memory = None
            self.gated.forget()
        return logits

    def _choose(self, number: int, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """As `rlprune.gating.controller.KeepController` and `rlprune.gating.masks.merge`."""
        gate, channels = self.gated.gate(number), len(self.gated.gate(number).scale)
        importance = gate.importance(pooled)
        keep = self._keep(number, pooled, importance)
        gone = channels - torch.ceil(keep * channels - 1e-6).clamp(min=1.0)
        off = _lowest(gate.runtime_scores(importance), gone)
        if self.gated.mix < 1:
            off = self._merge(number, gate, gate.runtime_scores(importance), off)
        return ~off, importance * gate.scale

    def _keep(self, number: int, pooled: Tensor, importance: Tensor) -> Tensor:
        if self.beyond is None:
            self.beyond = torch.zeros_like(pooled[:, 0])
        even, action = torch.full_like(pooled[:, 0], self.even), torch.zeros_like(pooled[:, 0])
        policy: Any = self.gated.runtime.policy  # type: ignore[union-attr]
        if policy is not None:
            context = torch.stack([even, self.beyond, torch.full_like(even, self.budget)], dim=1)
            action, self.memory = policy(number, pooled, importance, context, self.memory)
        asked = even * torch.exp(REACH * action.clamp(-1.0, 1.0) + self.shift)
        keep = asked.clamp(lowest_ratio(self.even), 1.0)
        self.beyond = self.beyond + self.shares[number] * (keep - even) / self.budget
        return keep

    def _merge(self, number: int, gate: Gate, runtime: Tensor, off_runtime: Tensor) -> Tensor:
        mix, off_static = self.gated.mix, self.get_buffer(f"unwanted{number}")
        static = gate.static_scores().expand_as(runtime)
        gone = (off_runtime & off_static) | self.get_buffer(f"removed{number}")
        gone = gone | _part(runtime, mix, off_runtime & ~off_static) | _part(static, 1 - mix, off_static & ~off_runtime)
        best = torch.arange(static.shape[1]) == static[0].argmax()
        return gone & ~(gone.all(dim=1, keepdim=True) & best)


def _lowest(scores: Tensor, number: Tensor) -> Tensor:
    """(images, C) bool, so many lowest scores of every row."""
    order = scores.argsort(dim=1)
    first = torch.arange(scores.shape[1]) < number[:, None]
    return torch.zeros_like(first).scatter(1, order, first)


def _part(scores: Tensor, part: float, among: Tensor) -> Tensor:
    """(images, C) bool, the floor(part * n) lowest of those that may be taken."""
    behind = scores.masked_fill(~among, torch.inf)
    return _lowest(behind, torch.floor(part * among.sum(1) + 1e-6)) & among
