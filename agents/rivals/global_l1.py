"""One threshold for the channels of all groups; one evaluation."""

from rlprune.agents.contest import Entry
from rlprune.allocators.global_l1 import one_threshold


def run(entry: Entry) -> str:
    """See `rlprune.allocators.global_l1`."""
    entry.begin()
    entry(one_threshold(entry.problem.graph, entry.scores, entry.lander))
    return ""
