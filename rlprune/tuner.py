"""Plan -> loss after a brief fine-tuning: what a plan is worth once its network has begun to recover."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from rlprune.crew import MEMBERS
from rlprune.evaluator import Evaluation
from rlprune.plan import plan_key, top_mask
from rlprune.problem import Problem
from rlprune.pruner import prune
from rlprune.training import evaluate, recover_together

PART = 4
"""A brief fine-tuning sees one in so many training images, once."""
STEPS = 100
"""Steps it takes at least, where there are images enough."""
HELD = 4000
"""Training images, at most, that it does not see and that are scored together with the search split."""


class Tuner:
    """Tunes plans briefly and remembers them.

    The schedule is that of a whole fine-tuning, annealed to zero (see `rlprune.training.train`). All plans see the same
    images in the same order, so that they differ in nothing but themselves; few search images would still leave much
    noise, which is why training images that are not among those are scored, too.

    Args:
        problem: the dense network and its images.
        scores: (all groups' channels,) from a criterion; decides which channels stay.
        seed: of the choice of images and of the training.
        lr, batch_size: of the training; None for its defaults.
        distill: whether plans learn from the dense network, too.
        seen: what is known already, by kept counts.
        on_new: told the counts and the evaluation of every plan that had to be tuned.
    """

    def __init__(
        self,
        problem: Problem,
        scores: np.ndarray,
        seed: int = 0,
        lr: float | None = None,
        batch_size: int | None = None,
        distill: bool = False,
        seen: dict[tuple[int, ...], Evaluation] | None = None,
        on_new: Callable[[np.ndarray, Evaluation], None] = lambda counts, evaluation: None,
    ) -> None:
        self.problem, self.scores, self.seed = problem, scores, seed
        self.lr, self.batch_size = lr, batch_size
        self.teacher = problem.module if distill else None
        self.seen = {} if seen is None else seen
        self.on_new = on_new
        train = problem.data.train
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
        size = batch_size or 128
        used = min(max(len(train) // PART, STEPS * size), len(train))
        self.images = train.subset(order[:used])
        held = train.subset(order[used : used + HELD])
        self.judged = [problem.data.search, *([held] if len(held) else [])]

    def __call__(self, plans: Sequence[np.ndarray]) -> list[Evaluation]:
        """Tune plans, those that are not known side by side.

        Args:
            plans: (groups,) kept channels each.
        """
        new = list({plan_key(counts): counts for counts in plans if plan_key(counts) not in self.seen}.values())
        for start in range(0, len(new), MEMBERS):
            self._tune(new[start : start + MEMBERS])
        return [self.seen[plan_key(counts)] for counts in plans]

    def _tune(self, plans: Sequence[np.ndarray]) -> None:
        problem = self.problem
        masks = [top_mask(problem.graph, counts, self.scores) for counts in plans]
        modules = [prune(problem.module, problem.graph, mask) for mask in masks]
        recover_together(
            modules, self.images, lr=self.lr, batch_size=self.batch_size, seed=self.seed, device=problem.device,
            teacher=self.teacher,
        )  # fmt: skip
        for counts, module in zip(plans, modules, strict=True):
            evaluation = self._judge(module)
            self.seen[plan_key(counts)] = evaluation
            self.on_new(counts, evaluation)

    def _judge(self, module: nn.Module) -> Evaluation:
        sizes = [len(images) for images in self.judged]
        parts = [evaluate(module, images, device=self.problem.device) for images in self.judged]
        loss, accuracy = np.average(parts, axis=0, weights=sizes).tolist()
        # A network that diverged tells nothing: chance.
        return Evaluation(loss if math.isfinite(loss) else math.log(len(self.problem.data.classes)), accuracy)
