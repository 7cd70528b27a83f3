"""What may be kept: parse it, print both readings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlprune.cost.exact import RESOURCES
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
