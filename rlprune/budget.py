"""What may be kept: parse it, check that it can be met, and land plans exactly on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlprune.cost import RESOURCES, Cost
from rlprune.errors import UserError, unknown

LEVELS = 7
"""Budgets that stand for a range of them in a search."""
LATENCY = "latency"
WORDS = {"macs": "MACs", "params": "parameters", LATENCY: "latency"}


@dataclass(frozen=True)
class Budget:
    """Upper bounds on what is kept, as fractions of the dense network; an empty one allows everything.

    Attributes:
        limits: resource -> fraction.
        milliseconds: the bound on the latency where it was given so; `against` makes a fraction of it.
    """

    limits: Mapping[str, float]
    milliseconds: float | None = None

    def __str__(self) -> str:
        limits = {resource: f"{limit:g}" for resource, limit in self.limits.items()}
        if self.milliseconds is not None:
            limits[LATENCY] = f"{self.milliseconds:g}ms"
        return ",".join(f"{resource}={limit}" for resource, limit in limits.items()) or "none"

    def describe(self) -> str:
        """Both readings of every bound, for people."""
        parts = [
            f"keep ≤ {100 * limit:g} % of the {WORDS[resource]} (remove ≥ {100 - 100 * limit:g} %)"
            for resource, limit in self.limits.items()
            if resource != LATENCY or self.milliseconds is None
        ]
        if self.milliseconds is not None:
            parts.append(f"take ≤ {self.milliseconds:g} ms")
        return ", ".join(parts) or "no bound"

    def fractions(self, resources: tuple[str, ...] = RESOURCES) -> np.ndarray:
        """(resources,) bound of every resource, infinity where there is none."""
        return np.array([self.limits.get(resource, np.inf) for resource in resources])

    @property
    def bounded(self) -> bool:
        """Whether it bounds anything."""
        return bool(self.limits) or self.timed

    @property
    def timed(self) -> bool:
        """Whether it bounds the latency."""
        return LATENCY in self.limits or self.milliseconds is not None

    def against(self, dense: float) -> "Budget":
        """The same budget with its milliseconds as a fraction of what the dense network takes.

        Raises:
            UserError: the dense network is as fast as that.
        """
        if self.milliseconds is None:
            return self
        if self.milliseconds >= dense:
            raise UserError(f"budget {self}: the dense network takes only {dense:.3g} ms here, ask for less")
        return replace(self, limits={**self.limits, LATENCY: self.milliseconds / dense})


def parse_budget(given: "str | float | Mapping[str, float] | Budget | None") -> Budget:
    """Read a budget.

    Args:
        given: ``0.3`` or ``"0.3"`` (a bare number means MACs), ``"macs=0.3,params=0.4"``, ``"latency=0.5"``,
            ``"latency=8ms"``, or a mapping.

    Raises:
        UserError: not a number in (0, 1], or an unknown resource.
    """
    if given is None or isinstance(given, Budget):
        return given or Budget({})
    if isinstance(given, Mapping):
        entries = [(str(key), str(value)) for key, value in given.items()]
    else:
        parts = [part.strip() for part in str(given).split(",") if part.strip()]
        entries = [
            ("macs", part) if "=" not in part else (part.split("=", 1)[0], part.split("=", 1)[1]) for part in parts
        ]
    limits: dict[str, float] = {}
    milliseconds: dict[str, float] = {}
    for key, value in entries:
        name = key.strip().lower()
        if name not in WORDS:
            raise unknown("budget resource", name, WORDS)
        if name in limits or name in milliseconds:
            raise UserError(f"budget '{given}' names {name} twice: give it once")
        if name == LATENCY and value.strip().endswith("s"):
            milliseconds[name] = _milliseconds(value.strip())
        else:
            limits[name] = _fraction(name, value)
    if not limits and not milliseconds:
        raise UserError(f"budget '{given}' is empty: expected something like 0.3 or macs=0.3,params=0.4")
    return Budget(limits, milliseconds.get(LATENCY))


def parse_budgets(given: "str | float | Mapping[str, float] | Budget | None") -> list[Budget]:
    """Read a budget or a range of budgets.

    Args:
        given: as for `parse_budget`; in a text one of the numbers may be a range such as ``0.2:0.8``.

    Returns:
        One budget, or `LEVELS` of them from the lower end of the range to the upper one, evenly in their logarithm.

    Raises:
        UserError: as from `parse_budget`, or the range is empty, or there are two.
    """
    if not isinstance(given, str) or ":" not in given:
        return [parse_budget(given)]
    parts = given.split(",")
    ranges = [place for place, part in enumerate(parts) if ":" in part]
    if len(ranges) > 1:
        raise UserError(f"budget '{given}' has two ranges: only one resource may have one, such as macs=0.2:0.8")
    name, _, ends = parts[ranges[0]].rpartition("=")
    if name.strip().lower() == LATENCY:
        raise UserError(f"budget '{given}': a range is one of MACs or parameters, the latency takes one number")
    low, high = (_fraction(name or "macs", end) for end in ends.split(":", 1))
    if low >= high:
        raise UserError(f"budget '{given}': the range goes from the smaller to the larger number, such as 0.2:0.8")
    return [
        parse_budget(",".join([*parts[: ranges[0]], f"{name or 'macs'}={value:.4g}", *parts[ranges[0] + 1 :]]))
        for value in np.geomspace(low, high, LEVELS)
    ]


def describe(budgets: Sequence[Budget]) -> str:
    """Both readings of a budget, or of the ends of a range, for people."""
    if len(budgets) == 1:
        return budgets[0].describe()
    parts = []
    for resource, low in budgets[0].limits.items():
        high, unit = budgets[-1].limits[resource], WORDS[resource]
        if low == high:
            parts.append(Budget({resource: low}).describe())
            continue
        kept, gone = (f"{100 * first:g} to {100 * second:g} %" for first, second in ((low, high), (1 - high, 1 - low)))
        parts.append(f"keep {kept} of the {unit} (remove {gone})")
    return ", ".join(parts)


def _milliseconds(text: str) -> float:
    """'8ms' -> 8.0, '0.01s' -> 10.0."""
    unit = 1 if text.endswith("ms") else 1000
    try:
        value = unit * float(text.removesuffix("s").removesuffix("m"))
    except ValueError:
        raise UserError(f"budget latency={text} is no time: expected a fraction such as 0.5, or 8ms") from None
    if not 0 < value < np.inf:
        raise UserError(f"budget latency={text} is out of range: expected a time above 0, such as 8ms")
    return value


def _fraction(name: str, text: str) -> float:
    if ":" in text:
        raise UserError(f"budget {name}={text} is a range, for which only search learns: name one number such as 0.3")
    percent = text.strip().endswith("%")
    try:
        value = float(text.strip().removesuffix("%")) / (100 if percent else 1)
    except ValueError:
        raise UserError(f"budget {name}={text} is not a number: expected a fraction to keep such as 0.3") from None
    if not 0 < value <= 1:
        raise UserError(
            f"budget {name}={text} is out of range: it is the fraction to keep, above 0 and at most 1 "
            "(0.3 keeps at most 30 %)" + ("; a time is written 8ms" if name == LATENCY else "")
        )
    return value


class Lander:
    """Turns wished keep ratios into the largest plan inside every budget.

    Every method takes many plans at once, as (plans, groups) arrays.

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
            raise UserError(f"{what} asks for a measurement: open a landing for it")
        if round_to < 1 or min_channels < 1:
            raise UserError(f"round_to={round_to} and min_channels={min_channels} must both be at least 1")
        self.cost = cost
        self.budget = budget
        self.round_to = round_to
        self.min_channels = min_channels
        self.sizes = cost.sizes
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
        """Wished channel counts (float) -> allowed counts, rounded down."""
        # A hair is added so that a count that is whole in exact arithmetic is not lost to rounding.
        wished = wished * (1 + 1e-9)
        rounded = np.floor(wished / self.steps) * self.steps
        return np.where(wished >= self.sizes, self.sizes, np.clip(rounded, self.minimum, self.sizes)).astype(np.int64)

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
            wished: (plans, groups) positive channel counts before scaling.
            decided: (plans, groups) counts of the groups before `first`; the rest is ignored.
            first: index of the first group that is scaled.
            around: (plans,) factors near which to look; then to within half a percent, which a walk's next wish is
                content with, rather than exactly.

        Returns:
            (plans,) the factors.
        """
        tail = slice(first, None)
        low = np.log((self.minimum[tail] / wished[:, tail]).min(axis=1))
        high = np.log((self.sizes[tail] / wished[:, tail]).max(axis=1))
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

    def largest(self, counts: np.ndarray, group: int) -> np.ndarray:
        """(plans,) the largest allowed count of one group when the others stay as they are."""
        size, least = int(self.sizes[group]), int(self.minimum[group])
        allowed = np.unique(np.append(np.arange(least, size + 1, self.steps[group]), size))
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

    def land(self, wished: np.ndarray) -> np.ndarray:
        """(plans, groups) wished counts -> the largest plans of the same proportions inside every budget."""
        return self.fill(self.quantise(wished * self.rescale(wished)[:, None]))

    def _above(self, counts: np.ndarray) -> np.ndarray:
        return np.minimum(counts // self.steps * self.steps + self.steps, self.sizes)
