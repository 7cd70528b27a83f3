"""Wished keep ratios -> the largest plan inside every budget."""

import numpy as np

from rlprune.cost.budget import LATENCY, Budget
from rlprune.cost.exact import Cost
from rlprune.errors import UserError


class BudgetProjector:
    """Turns wished keep ratios into the largest plan inside every budget.

    Every method takes many plans at once, as (plans, groups) arrays. A residual block that is taken out has 0 channels
    in its inner groups, and a wish of 0 there stays 0; every other wish becomes an allowed count.

    Args:
        cost: the coupled cost of the network.
        budget: what may be kept.
        round_to: outputs of a group's first layer are a multiple of this (or the whole group is kept).
        min_channels: no group keeps fewer of them (or is kept whole where it has fewer).

    Raises:
        UserError: even the smallest plan is above the budget; says the smallest feasible one.
    """

    def __init__(self, cost: Cost, budget: Budget, round_to: int | str = 1, min_channels: int = 1) -> None:
        if isinstance(round_to, str) or (budget.timed and LATENCY not in cost.resources):
            what = f"round_to={round_to}" if isinstance(round_to, str) else f"budget {budget}"
            raise UserError(f"{what} asks for a measurement: open a measured budget for it")
        if round_to < 1 or min_channels < 1:
            raise UserError(f"round_to={round_to} and min_channels={min_channels} must both be at least 1")
        self.cost = cost
        self.budget = budget
        self.round_to = round_to
        self.min_channels = min_channels
        self.sizes = cost.sizes
        self._removable = np.isin(np.arange(len(self.sizes)), [group for block in cost.blocks for group in block])
        # Channels may be bundles of several outputs, of which fewer make a multiple.
        self.steps = round_to // np.gcd(round_to, cost.widths)
        least = -(-min_channels // cost.widths)
        self.minimum = np.minimum(-(-least // self.steps) * self.steps, self.sizes)
        # A hair of slack absorbs rounding: 0.3 of the dense cost may be meant to be a whole number.
        self.caps = budget.fractions(cost.resources) * cost.dense * (1 + 1e-12)
        self._refuse_infeasible()
        step = np.diag(self._above(self.minimum) - self.minimum)
        growth = (self.cost(self.minimum + step) - self.cost(self.minimum)) / cost.dense
        self._dearest_first = np.argsort(-growth.max(axis=1), kind="stable")

    def _refuse_infeasible(self) -> None:
        smallest = self.cost(self.minimum)
        if (smallest <= self.caps).all():
            return
        floor = np.ceil(smallest / self.cost.dense * 1e4) / 1e4
        possible = [
            f"{name}={floor[i]:.4g}" + (f" ({smallest[i]:.3g} ms)" if name == LATENCY else "")
            for i, name in enumerate(self.cost.resources)
            if smallest[i] > self.caps[i]
        ]
        raise UserError(
            f"budget {self.budget} is below what is feasible: with round_to={self.round_to} and "
            f"min_channels={self.min_channels} the smallest possible is {','.join(possible)}"
        )

    def quantise(self, wished: np.ndarray) -> np.ndarray:
        """Wished channel counts (float) -> allowed counts, rounded down; 0 for a wish of 0 in a residual block."""
        out = self._removable & (wished == 0)
        # A hair is added so that a count that is whole in exact arithmetic is not lost to rounding.
        wished = wished * (1 + 1e-9)
        rounded = np.floor(wished / self.steps) * self.steps
        allowed = np.where(wished >= self.sizes, self.sizes, np.clip(rounded, self.minimum, self.sizes))
        return np.where(out, 0, allowed).astype(np.int64)

    def fits(self, counts: np.ndarray) -> np.ndarray:
        """(...,) whether plans are inside every budget."""
        return (self.cost(counts) <= self.caps).all(axis=-1)

    def rescale(
        self,
        wished: np.ndarray,
        decided: np.ndarray | None = None,
        first: int = 0,
        around: np.ndarray | None = None,
    ) -> np.ndarray:
        """The common factor on the groups from `first` on with which the plan just fits.

        Args:
            wished: (plans, groups) channel counts before scaling; those of 0 are not scaled.
            decided: (plans, groups) counts of the groups before `first`; the rest is ignored.
            first: index of the first group that is scaled.
            around: (plans,) factors near which to look; then to within half a percent, which a walk's next wish is
                content with, rather than exactly.

        Returns:
            (plans,) the factors.
        """
        tail = slice(first, None)
        scaled = np.where(wished[:, tail] > 0, wished[:, tail], np.nan)
        # Where nothing is left to scale any factor will do.
        idle = np.isnan(scaled).all(axis=1)
        scaled[idle] = self.sizes[tail]
        low = np.log(np.nanmin(self.minimum[tail] / scaled, axis=1))
        high = np.log(np.nanmax(self.sizes[tail] / scaled, axis=1))
        if around is not None:
            low, high = (np.clip(edge, low, high) for edge in (np.log(around) - 0.6, np.log(around) + 0.6))
        plan = np.empty(wished.shape, dtype=np.int64) if decided is None else decided.copy()

        def within(log_factor: np.ndarray) -> np.ndarray:
            plan[:, tail] = self.quantise(wished * np.exp(log_factor)[:, None])[:, tail]
            return self.fits(plan)

        # Where everything fits whole there is nothing to search for.
        low = np.where(within(high), high, low)
        for _ in range(26 if around is None else 8):
            middle = (low + high) / 2
            ok = within(middle)
            low, high = np.where(ok, middle, low), np.where(ok, high, middle)
        return np.exp(low)

    def allowed(self, group: int) -> np.ndarray:
        """(choices,) the counts that one group may keep, upwards, where its block is not taken out."""
        size, least = int(self.sizes[group]), int(self.minimum[group])
        return np.unique(np.append(np.arange(least, size + 1, self.steps[group]), size))

    def largest(self, counts: np.ndarray, group: int) -> np.ndarray:
        """(plans,) the largest allowed count of one group when the others stay as they are."""
        allowed = self.allowed(group)
        low, high = np.zeros(len(counts), dtype=np.int64), np.full(len(counts), len(allowed) - 1)
        trial = counts.copy()
        while (low < high).any():
            middle = (low + high + 1) // 2
            trial[:, group] = allowed[middle]
            ok = self.fits(trial)
            low, high = np.where(ok, middle, low), np.where(ok, high, middle - 1)
        return allowed[low]

    def fill(self, counts: np.ndarray) -> np.ndarray:
        """Spend what is left, so that one more step anywhere would leave the budget.

        Every group first grows by one step at most, so that the remainder is spread; then as far as it fits.
        """
        counts = counts.copy()
        for group in self._dearest_first:
            grown = counts.copy()
            grown[:, group] = self._above(counts)[:, group]
            counts = np.where(self.fits(grown)[:, None], grown, counts)
        for group in self._dearest_first:
            grown = counts.copy()
            grown[:, group] = self._above(counts)[:, group]
            room = np.flatnonzero(self.fits(grown) & (grown != counts).any(axis=1))
            if len(room):
                counts[room, group] = self.largest(counts[room], group)
        return counts

    def project(self, wished: np.ndarray) -> np.ndarray:
        """(plans, groups) wished counts -> the largest plans of the same proportions inside every budget."""
        return self.fill(self.quantise(wished * self.rescale(wished)[:, None]))

    def _above(self, counts: np.ndarray) -> np.ndarray:
        above = np.minimum(counts // self.steps * self.steps + self.steps, self.sizes)
        return np.where(counts == 0, 0, above)
