"""The decisions of all gates for a single image, in as few steps as they can be taken.

For one image most layers take less time than the tensor operations that decide about them would; with plain arrays and
numbers the same decisions take a fifth of it. The arrays are views of the network's own tensors.
"""

import math

import numpy as np

from rlprune.gating.controller import REACH, KeepController, lowest_ratio
from rlprune.gating.gate import Gate, plain
from rlprune.gating.masks import merge
from rlprune.gating.network import GatedNetwork
from rlprune.gating.policy import RecurrentState, arrays, linear, think


class Quick:
    """Follows one image after the other through the gates.

    Args:
        gated: the network, on the CPU.
        runtime: its agent.
    """

    def __init__(self, gated: GatedNetwork, runtime: KeepController) -> None:
        self.mix, self.runtime = gated.mix, runtime
        self.gates = [_Arrays(gated.gate(number)) for number in range(len(gated.gates))]
        self.static = runtime.static.numpy()
        policy = runtime.policy
        self.encoders = [arrays(layer) for layer in policy.encoders] if policy is not None else []
        self.layers = [arrays(policy.hidden), arrays(policy.head)] if policy is not None else []

    def decide(self, number: int, pooled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What of a gated layer runs for an image, and how its channels are scaled.

        Args:
            number: of the gate; an image begins at 0.
            pooled: (inputs,) pooled features.

        Returns:
            (channels,) bool and (channels,) factors.
        """
        # Products of so short vectors are computed in whole registers, whose rest may hold anything and warn of it.
        with np.errstate(invalid="ignore"):
            return self._decide(number, pooled)

    def _decide(self, number: int, pooled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if number == 0:
            self._begin()
        gate = self.gates[number]
        importance = gate.importance(pooled)
        keep = self._keep(number, pooled, importance)
        static = gate.static() if self.mix < 1 or gate.weight is None else gate.prior
        runtime = static if gate.weight is None else importance * gate.prior
        return self._choose(runtime, static, keep, self.static[number]), importance * gate.scale

    def _begin(self) -> None:
        runtime = self.runtime
        self.even = float(runtime.layout.even(runtime.budget))
        self.shift = float(np.interp(runtime.budget, runtime.budgets.numpy(), runtime.shifts.numpy()))
        self.beyond = 0.0
        self.memory: RecurrentState[np.ndarray] | None = None

    def _keep(self, number: int, pooled: np.ndarray, importance: np.ndarray) -> float:
        """As `rlprune.gating.controller.Walk.take` of the action of `rlprune.gating.controller.KeepPolicy.act`."""
        action = 0.0
        if self.layers:
            (encoder, shift), (hidden, head) = self.encoders[number], self.layers
            seen = len(pooled)
            encoded = np.maximum(encoder[:, :seen] @ pooled + encoder[:, seen:] @ importance + shift, 0)
            context = np.array([self.even, self.beyond, self.runtime.budget], dtype=np.float32)
            inner, self.memory = think(hidden, np.concatenate([encoded, context]), self.memory)
            action = float(linear(head, inner)[0])
        asked = self.even * math.exp(REACH * min(max(action, -1), 1) + self.shift)
        keep = min(max(asked, lowest_ratio(self.even)), 1.0)
        self.beyond += float(self.runtime.layout.shares[number]) * (keep - self.even) / self.runtime.budget
        return keep

    def _choose(self, runtime: np.ndarray, static: np.ndarray, keep: float, keep_static: float) -> np.ndarray:
        """As `rlprune.gating.masks.merge` for one image."""
        if self.mix < 1:
            return merge(runtime[None], static, np.array([keep]), np.array([keep_static]), self.mix)[0]
        kept = max(math.ceil(keep * len(runtime) - 1e-6), 1)
        mask = np.zeros(len(runtime), dtype=bool)
        mask[runtime.argsort(kind="stable")[len(runtime) - kept :]] = True
        return mask


class _Arrays:
    """A gate's tensors as arrays."""

    def __init__(self, gate: Gate) -> None:
        self.weight: np.ndarray | None = None
        self.bias: np.ndarray | None = None
        if gate.predictor is not None:
            self.weight, self.bias = arrays(gate.predictor)
        self.scale, self.prior = plain(gate.scale), plain(gate.prior)

    def importance(self, pooled: np.ndarray) -> np.ndarray:
        """(channels,) of this image."""
        if self.weight is None:
            return np.ones_like(self.scale)
        found: np.ndarray = self.weight @ pooled + self.bias
        return found

    def static(self) -> np.ndarray:
        """(channels,) that rank the channels for all images."""
        return np.abs(self.scale) * self.prior
