"""The course of a search for TensorBoard: the curves of its page, and the keep ratios of the best plan so far."""

from pathlib import Path

import numpy as np

from rlprune.graph.structure import Graph
from rlprune.tasks.base import Evaluation


class TensorBoardLog:
    """Event files of one search.

    Args:
        folder: the run's folder for TensorBoard; a search that continues adds to what is there.
        graph: names and sizes of the groups.
    """

    def __init__(self, folder: Path, graph: Graph) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "plans"))
        self._groups, self._sizes = [group.name for group in graph.groups], graph.sizes
        self._best: np.ndarray | None = None

    def add(
        self,
        number: int,
        evaluation: Evaluation,
        ratios: np.ndarray,
        best: np.ndarray | None,
        best_loss: float,
    ) -> None:
        """Record the evaluation with this number.

        Args:
            number: 1 for the first evaluation of the run.
            evaluation: its loss and accuracy.
            ratios: (2,) the MACs and parameters that its plan keeps.
            best: the best plan so far, which begins with its kept counts, if there is one yet.
            best_loss: the loss of that plan.
        """
        facts = {"loss": evaluation.loss, "accuracy": evaluation.accuracy}
        for name, value in (facts | {"macs_kept": ratios[0], "params_kept": ratios[1]}).items():
            self._writer.add_scalar(f"plans/{name}", value, number)
        if best is not None:
            self._writer.add_scalar("plans/best_loss", best_loss, number)
        if best is not None and best is not self._best:
            self._best = best
            for group, ratio in zip(self._groups, best[: len(self._sizes)] / self._sizes, strict=True):
                self._writer.add_scalar(f"kept/{group}", ratio, number)
        # Nobody says when a search ends, least of all one that is interrupted.
        self._writer.flush()
