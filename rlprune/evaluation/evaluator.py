"""Plan -> loss and accuracy on the search split, each plan measured once."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from torch import Tensor

from rlprune.execution.executor import Executor, SerialExecutor
from rlprune.graph.structure import Graph
from rlprune.plans.counts import not_in, plan_key, top_mask
from rlprune.tasks.base import Evaluation, Task
from rlprune.tasks.classification import CLASSIFICATION


class Runner(Protocol):
    """Runs a network with some of its channels.

    Attributes:
        graph: structure of the dense network.
    """

    graph: Graph

    def logits(self, kept: np.ndarray, images: Tensor) -> Tensor:
        """(N, classes) outputs for (N, C, H, W) images with the (all groups' channels,) kept ones."""


class PlanEvaluator(Protocol):
    """Whoever evaluates plans and remembers them.

    Attributes:
        scores: (all groups' channels,) from a criterion, or (criteria, all groups' channels); decides which channels
            stay.
        seen: plan, as `rlprune.plans.counts` has it -> what was found.
    """

    scores: np.ndarray
    seen: dict[tuple[int, ...], Evaluation]

    def __call__(self, counts: np.ndarray) -> Evaluation:
        """Evaluate one plan, (groups,) kept channels."""

    def evaluate(self, plans: Sequence[np.ndarray]) -> list[Evaluation]:
        """Evaluate plans, (groups,) kept channels each."""


class Evaluator:
    """Scores kept counts on the search split and remembers what it has seen.

    Args:
        runner: runs the network that is left.
        scores: (all groups' channels,) from a criterion, or (criteria, all groups' channels), of which plans name one
            for every group; decides which channels stay.
        images: (N, C, H, W) of the search split.
        labels: (N,).
        seen: what is known already, by kept counts.
        on_new: told the counts and the evaluation of every plan that had to be run.
        executor: where plans are run; by default here, one after the other.
        task: says how good outputs are.
    """

    def __init__(
        self,
        runner: Runner,
        scores: np.ndarray,
        images: Tensor,
        labels: Tensor,
        seen: dict[tuple[int, ...], Evaluation] | None = None,
        on_new: Callable[[np.ndarray, Evaluation], None] | None = None,
        executor: Executor | None = None,
        task: Task = CLASSIFICATION,
    ) -> None:
        self.runner = runner
        self.scores = scores
        self.images = images
        self.labels = labels
        self.seen = {} if seen is None else seen
        self.on_new = on_new
        self.executor, self.task = executor or SerialExecutor(), task

    def __call__(self, counts: np.ndarray) -> Evaluation:
        """Evaluate one plan, (groups,) kept channels."""
        return self.evaluate([counts])[0]

    def evaluate(self, plans: Sequence[np.ndarray]) -> list[Evaluation]:
        """Evaluate plans together, those that are known at no cost.

        Args:
            plans: (groups,) kept channels each.
        """
        new = not_in(self.seen, plans)
        for counts, evaluation in zip(new, self.executor.map(self._run, new), strict=True):
            self.seen[plan_key(counts)] = evaluation
            if self.on_new:
                self.on_new(counts, evaluation)
        return [self.seen[plan_key(counts)] for counts in plans]

    def _run(self, counts: np.ndarray) -> Evaluation:
        logits = self.runner.logits(top_mask(self.runner.graph, counts, self.scores), self.images)
        return self.task.evaluate(logits, self.labels)
