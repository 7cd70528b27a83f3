"""Random plans around the uniform one, the control that EagleEye (Li et al., 2020, arXiv 2007.02491) showed to be hard.

Every group's keep ratio is that of the uniform plan times a log-normal number; the plan is landed on the budget.
"""

import numpy as np

from rlprune.agents.contest import Entry, around, rounds
from rlprune.allocators.uniform import uniform

SIGMA = 0.5
BATCH = 16


def run(entry: Entry) -> str:
    """Draw until the evaluations are spent; the best one counts."""
    rng = np.random.default_rng(entry.seed)
    entry.begin()
    start = uniform(entry.lander)
    entry(start)
    for _ in rounds(entry):
        entry.measure(around(entry.lander, start, rng.normal(0, SIGMA, (BATCH, len(start)))))
    return ""
