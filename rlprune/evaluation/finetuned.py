"""Plan -> loss after a brief or a longer fine-tuning: what a plan is worth once its network has begun to recover."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from rlprune.data.holdout import hold_back
from rlprune.evaluation.network import PreparedNetwork
from rlprune.plans.counts import not_in, plan_key, top_mask
from rlprune.tasks.base import Evaluation
from rlprune.tasks.classification import CLASSIFICATION
from rlprune.training.config import TrainingConfig, usual_batch_size
from rlprune.training.loop import evaluate, recover_together
from rlprune.training.parallel import WORKERS

PART = 4
"""A brief fine-tuning sees one in so many training images, once."""
STEPS = 100
"""Steps it takes at least: after fewer the networks still guess. Where images are few it sees them more than once."""
MOST = 400
"""Steps it takes at most, four times what CIFAR-10 takes: a quarter of ImageNet would be 2,500, and 40 tunings with the
longer ones 30 epochs."""
LENGTHS = (1, 4)
"""How many times as long as a brief fine-tuning tunings are."""
FEWER = 2
"""One in so many plans gets the next longer one."""


class FineTunedEvaluator:
    """Tunes plans for so many steps and remembers them.

    The schedule is that of a whole fine-tuning, annealed to zero (see `rlprune.training.loop.train`). All plans see the
    same images in the same order, so that they differ in nothing but themselves; few search images would still leave
    much noise, which is why training images that are held back from all of them (see `rlprune.data.holdout`) are
    scored, too.

    Args:
        workload: the dense network and its images.
        scores: as for `rlprune.evaluation.evaluator.Evaluator`.
        distill: whether plans learn from the dense network, too.
        times: how many times as long as a brief fine-tuning it is.
        whole: epochs of the fine-tuning that it stands for. Where images are few, a brief tuning takes so small a part
            of it that the longest still fits in, but one epoch at least.
        seen: what is known already, by kept counts.
        on_new: told the counts and the evaluation of every plan that had to be tuned.
        cut: (all groups' channels,) bool, True where a channel stays -> the smaller network, maybe repaired.
        recipe: attributes of `rlprune.training.config.TrainingConfig`; the seed also decides which images are chosen.

    Attributes:
        images: that plans learn from.
        epochs: passes over them.
        config: of the training.
        length: how many images that makes, in words.
        held: training images that are held back.
        judged: the images they are scored on: these and the search split.
    """

    def __init__(
        self,
        workload: PreparedNetwork,
        scores: np.ndarray,
        distill: bool = False,
        times: int = 1,
        whole: int = 1,
        seen: dict[tuple[int, ...], Evaluation] | None = None,
        on_new: Callable[[np.ndarray, Evaluation], None] = lambda counts, evaluation: None,
        cut: Callable[[np.ndarray], nn.Module] | None = None,
        **recipe: Any,
    ) -> None:
        self.workload, self.scores = workload, scores
        config = TrainingConfig(epochs=1, recovery=True, **recipe)
        self.teacher = workload.module if distill else None
        self.seen = {} if seen is None else seen
        self.on_new = on_new
        self.cut = cut or workload.cut
        train = workload.data.train
        learned, self.held = hold_back(train, config.seed)
        free = len(learned)
        at_once = config.batch_size or usual_batch_size(free)
        brief = min(max(len(train) // PART, STEPS * at_once), max(whole * free // LENGTHS[-1], free), MOST * at_once)
        # One more epoch of fewer images rather than to leave out more than a quarter of one.
        self.epochs = max(int(times * brief / free + 0.75), 1)
        self.images = learned.subset(torch.arange(min(times * brief // self.epochs, free)))
        self.config = replace(config, epochs=self.epochs)
        self.length = f"{self.epochs * len(self.images)} images"
        self.judged = [workload.data.search, *([self.held] if len(self.held) else [])]

    @staticmethod
    def of_all_lengths(
        workload: PreparedNetwork, scores: np.ndarray, epochs: int, **settings: Any
    ) -> "list[FineTunedEvaluator]":
        """A brief tuner and longer ones, none of which takes longer than the fine-tuning that they stand for.

        Args:
            workload, scores: as above.
            epochs: of that fine-tuning.
            settings: distill, cut and the recipe, as above.
        """
        brief, *longer = (
            FineTunedEvaluator(workload, scores, times=times, whole=epochs, **settings) for times in LENGTHS
        )
        return [brief, *(tuner for tuner in longer if tuner.epochs <= epochs)]

    def __call__(self, plans: Sequence[np.ndarray]) -> list[Evaluation]:
        """Tune plans, those that are not known side by side.

        Args:
            plans: (groups,) kept channels each.
        """
        new = not_in(self.seen, plans)
        for start in range(0, len(new), WORKERS):
            self._tune(new[start : start + WORKERS])
        return [self.seen[plan_key(counts)] for counts in plans]

    def _tune(self, plans: Sequence[np.ndarray]) -> None:
        workload = self.workload
        masks = [top_mask(workload.graph, counts, self.scores) for counts in plans]
        modules = [self.cut(mask) for mask in masks]
        recover_together(modules, self.images, self.config, device=workload.device, teacher=self.teacher)
        for counts, module in zip(plans, modules, strict=True):
            evaluation = self._judge(module)
            self.seen[plan_key(counts)] = evaluation
            self.on_new(counts, evaluation)

    def _judge(self, module: nn.Module) -> Evaluation:
        sizes = [len(images) for images in self.judged]
        parts = [evaluate(module, images, device=self.workload.device) for images in self.judged]
        loss, accuracy = np.average(parts, axis=0, weights=sizes).tolist()
        # A network that diverged tells nothing: chance.
        return Evaluation(
            loss if math.isfinite(loss) else CLASSIFICATION.chance_loss(len(self.workload.data.classes)), accuracy
        )
