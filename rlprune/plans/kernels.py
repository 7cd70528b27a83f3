"""Cuts of kernels in the file of a plan."""

from collections.abc import Mapping
from operator import index
from typing import Any

from rlprune.graph.kernels import KernelCut

UNIT = "kernel-group"
"""What the file of such a plan says it is of; older readers refuse it, for its groups list no kept channels."""

MOST = 10**6
"""Slices that nothing real has more of; a line of text could stand for any number of them."""


def group_to_json(kept: int, cut: KernelCut | None) -> dict[str, Any]:
    """What a plan says of a layer: how many slices stay, and where not all do, which filters keep which."""
    said: dict[str, Any] = {"slices_kept": kept}
    if cut is not None:
        said |= {"filters": [list(group) for group in cut.filters], "slices": [list(mine) for mine in cut.slices]}
    return said


def group_from_json(group: Mapping[str, Any]) -> tuple[tuple[int, ...], KernelCut | None]:
    """The places that stay in every group of filters, and which filters keep which slices.

    Raises:
        KeyError, TypeError, ValueError: it says something else.
    """
    kept, channels = index(group["slices_kept"]), index(group["channels"])
    if not 0 < kept <= channels <= MOST:
        raise ValueError(f"{kept} of {channels} slices stay")
    if kept == channels:
        if "slices" in group:
            raise ValueError("all slices stay, and some are named")
        return tuple(range(kept)), None
    filters, slices = (tuple(tuple(index(i) for i in part) for part in group[key]) for key in ("filters", "slices"))
    cut = KernelCut(filters, slices)
    if cut.kept != kept or max(mine[-1] for mine in slices) >= channels:
        raise ValueError(f"not {kept} of {channels} slices are named")
    return tuple(range(kept)), cut
