"""The sensitivity rule; its evaluations are those of the sensitivities and one more."""

from rlprune.agents.contest import Entry, sensitivity_plan


def run(entry: Entry) -> str:
    """See `rlprune.allocators.sensitivity`."""
    sensitivity_plan(entry)
    return ""
