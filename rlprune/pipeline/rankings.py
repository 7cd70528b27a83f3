"""The criteria that say which channels stay in a comparison, each with evaluations of its own.

The same counts are another network under another criterion.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from rlprune.agents.search.setup import make_evaluator
from rlprune.config.commands import Compare
from rlprune.evaluation.metered import EvaluationCache
from rlprune.methods.criteria.base import score_channels
from rlprune.plans.counts import text_to_key
from rlprune.runs.comparison import label_of
from rlprune.runs.folder import RunFolder
from rlprune.runs.journal import Journal
from rlprune.tasks.base import Evaluation
from rlprune.workloads.workload import Workload


@dataclass(frozen=True)
class Ranking:
    """One criterion of a comparison.

    Attributes:
        given: the settings of a comparison under it alone.
        cache: its evaluations.
        criterion: its name in the grid of methods and criteria; None where there is no grid.
    """

    given: Compare
    cache: EvaluationCache
    criterion: str | None = None

    def label(self, method: str) -> str:
        """What runs of a method are called under it."""
        return label_of(method, self.criterion)

    def remember(self, run: RunFolder, workload: Workload) -> None:
        """Take every evaluation to a log in the run folder, and those of the log to the cache."""
        log = run.episodes if self.criterion is None else Journal(run.path / f"episodes-{self.criterion}.csv")
        self.cache.evaluator.seen |= log.known()
        self.cache.seconds |= {text_to_key(row["counts"]): float(row["seconds"]) for row in log.rows}

        def enter(counts: np.ndarray, evaluation: Evaluation, seconds: float) -> None:
            log.add(counts, evaluation, workload.cost.ratios(counts), "compare", None, seconds)

        self.cache.on_new = enter


def rankings(given: Compare, workload: Workload, tell: Callable[[str], None]) -> list[Ranking]:
    """The criteria of a comparison.

    Args:
        given: its settings.
        workload: the trained network and its images.
        tell: hears of too little memory.

    Raises:
        UserError: a criterion does not apply to the network.
    """

    def score(name: str) -> np.ndarray:
        return score_channels(name, workload.module, workload.graph, workload.calibration(), given.seed)

    scored: dict[str, tuple[np.ndarray, float]] = {}
    found = []
    names: list[str | None] = [*given.grid] or [None]
    for criterion in names:
        mine = replace(given, criterion=criterion or given.criterion, criteria=None)
        evaluator = make_evaluator(workload, mine.criterion, given.seed, tell=tell, repair=given.repair)
        cache = EvaluationCache(evaluator, score=score, scored=scored)
        found.append(Ranking(mine, cache, criterion))
    return found
