"""Numbers in words, the same on the terminal and on the page."""

import math

from rlprune.errors import UserError

TAKEN_OUT = "block out"
"""In the place of numbers of channels where a group goes with its residual block."""


def percent(share: float, digits: int = 1) -> str:
    """0.3 -> '30.0 %'."""
    return f"{100 * share:.{digits}f} %"


def count(number: float) -> str:
    """Three significant digits: 313_200_000 -> '313 M'."""
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= 0.9995 * size:
            return f"{number / size:#.3g}".rstrip(".") + unit
    return f"{number:.0f}"


def size(number: float) -> str:
    """Bytes with three significant digits: 58_914_827 -> '58.9 MB'."""
    return count(number) + ("B" if number >= 999.5 else " B")


def duration(seconds: float) -> str:
    """3725 -> '1 h 2 min'."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def seconds(text: str) -> float:
    """'90s', '10m' or '1.5h' -> seconds.

    Raises:
        UserError: anything else.
    """
    number, unit = text[:-1], text[-1:]
    try:
        found = float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except (ValueError, KeyError):
        found = math.nan
    if not 0 < found < math.inf:
        raise UserError(f"time '{text}': expected a number above 0 and its unit, such as 90s, 10m or 1.5h")
    return found


def milliseconds(number: float) -> str:
    """Three significant digits: 12.345 -> '12.3 ms'."""
    return f"{number:#.3g}".rstrip(".") + " ms" if number < 1000 else f"{number:.0f} ms"
