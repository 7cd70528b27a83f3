"""What a command can do with another unit than channels."""

from collections.abc import Sequence
from typing import Any

from rlprune.config.options import USUAL_REPAIR
from rlprune.errors import UserError

CHANNEL = "channel"
"""What has always gone."""


def check_unit(given: Any) -> None:
    """Raise UserError where settings ask for something that only channels have.

    Args:
        given: the settings of a command that cuts.
    """
    unit = given.unit
    if unit.partition(":")[0] == CHANNEL:
        return
    told = f"--unit {unit}"
    if "latency" in str(given.budget):
        raise UserError(
            f"--budget {given.budget}: latencies are modelled for channels: with {told} bound macs or params"
        )
    if given.round_to == "auto":
        raise UserError(f"--round-to auto is measured of channels: with {told} name a number of slices")
    if given.criterion != "l1":
        raise UserError(
            f"--criterion {given.criterion} scores channels, and with {told} those slices stay that are least alike: "
            "leave it out"
        )
    if (repair := getattr(given, "repair", None)) not in (None, USUAL_REPAIR):
        raise UserError(f"--repair {repair} is for channels: with {told} batch norm alone is recalibrated")
    if getattr(given, "criteria", None):
        raise UserError(f"--criteria {given.criteria} score channels: with {told} leave them out")
    if getattr(given, "mode", "static") != "static":
        raise UserError(f"--mode {given.mode} chooses channels at run time: leave {told} out")
    decisions: Sequence[str] = getattr(given, "decisions", ())
    if others := [name for name in decisions if name != "channels"]:
        raise UserError(f"--decide {','.join(others)} is for channels: with {told} agents decide how many slices stay")
