"""The same keep ratio everywhere; one evaluation."""

from rlprune.agents.contest import Entry
from rlprune.allocators import uniform


def run(entry: Entry) -> str:
    """See `rlprune.allocators.uniform`."""
    entry.begin()
    entry(uniform.uniform(entry.lander))
    return ""
