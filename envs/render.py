"""An episode as text: what is kept of every group so far, and of what is bounded how much is left."""

import numpy as np

from rlprune.cost.budget import WORDS
from rlprune.envs.episode import EpisodeSpec
from rlprune.utils.text import TAKEN_OUT

HEAD = ("group", "channels", "kept", "ratio")
NOTE = "groups without a number count at their smallest"


def episode_table(spec: EpisodeSpec, counts: np.ndarray, decided: int) -> str:
    """A line a group, then a line for the MACs, the parameters and, where it is bounded, the latency.

    Args:
        spec: what is walked.
        counts: (groups,) kept channels; those that are not decided are the smallest allowed.
        decided: how many groups are.
    """
    names = spec.groups or tuple(f"group {number}" for number in range(len(counts)))
    rows = [HEAD]
    for number, (name, size, kept) in enumerate(zip(names, spec.projector.sizes, counts, strict=True)):
        if number < decided:
            known = (str(kept), _percent(kept / size) if kept else TAKEN_OUT)
        else:
            known = ("next" if number == decided else "-", "-")
        rows.append((name, str(size), *known))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return "\n".join([*lines, "", *_costs(spec, counts), *([] if decided == len(counts) else [NOTE])])


def _costs(spec: EpisodeSpec, counts: np.ndarray) -> list[str]:
    cost, limits = spec.projector.cost, spec.projector.budget.limits
    lines = []
    for resource, kept in zip(cost.resources, cost.ratios(counts), strict=True):
        bound = f" of {_percent(limits[resource])} allowed" if resource in limits else ""
        lines.append(f"{WORDS[resource]}: {_percent(kept)}{bound}")
    return lines


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.1f} %"
