"""The agents of `rlprune search`: the same preparation, the same search, the same seed."""

import numpy as np

from rlprune.agents.collapse import collapse
from rlprune.agents.contest import Entry
from rlprune.agents.level import Target
from rlprune.agents.preparation import prepare
from rlprune.agents.search import search
from rlprune.envs.walk import Task


def run(entry: Entry) -> str:
    """Search as `rlprune search --agent` with the method's name does; tells if the policy collapsed."""
    probes = 0

    def begin(task: Task) -> None:
        nonlocal probes
        probes = len(entry.seen)
        entry.begin()

    prepared = prepare(entry.problem, [entry.lander], entry, np.zeros(2), False, begin)
    target = Target(
        prepared.tasks,
        lambda plans: [entry(counts).loss for counts in plans],
        prepared.sensitivity.predict,
        prepared.starts,
    )
    found = search([target], entry.evaluations - probes, entry.method, entry.seed)
    return collapse(found.agent, prepared.tasks[0])
