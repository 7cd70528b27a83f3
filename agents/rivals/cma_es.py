"""CMA-ES (Hansen, The CMA evolution strategy: a tutorial, 2016, arXiv 1604.00772) around the sensitivity rule's plan.

What it moves are the logarithms of every group's multiplier on the base plan; landing takes care of the budget.
"""

import math
import warnings

import numpy as np

from rlprune.agents.contest import Entry, around, base_plan

with warnings.catch_warnings():
    # Where there is no matplotlib, it warns that it cannot draw, which nobody asks of it.
    warnings.simplefilter("ignore", UserWarning)
    import cma

SIGMA = 0.3


def run(entry: Entry) -> str:
    """Descend until the evaluations are spent; where it converges before, start again with other draws."""
    rng = np.random.default_rng(entry.seed)
    base = base_plan(entry)
    left = entry.evaluations
    while 0 < entry.left < left:
        left = entry.left
        _descend(entry, base, rng)
    return ""


def _descend(entry: Entry, base: np.ndarray, rng: np.random.Generator) -> None:
    # Numbers of its own instead of NumPy's global ones, which then need no seed.
    options = {"randn": lambda *shape: rng.standard_normal(shape), "seed": math.nan, "verbose": -9, "verb_log": 0}
    strategy = cma.CMAEvolutionStrategy(np.zeros(len(base)), SIGMA, options)
    while not strategy.stop():
        logs = strategy.ask()
        losses = entry.measure(around(entry.lander, base, np.array(logs)))
        if len(losses) < len(logs):
            return
        strategy.tell(logs, losses.tolist())
