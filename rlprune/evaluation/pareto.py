"""The front of a search over many budgets: the plans that no other plan beats at no higher cost."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from rlprune.cost.exact import Cost
from rlprune.plans.counts import counts_to_text
from rlprune.tasks.base import Evaluation

Seen = Mapping[tuple[int, ...], Evaluation]


def front(seen: Seen, cost: Cost, resource: str) -> pd.DataFrame:
    """The plans that are not dominated, the cheapest first.

    Args:
        seen: every evaluated plan.
        cost: of the network.
        resource: one of the cost's resources, what is traded for the loss.

    Returns:
        macs_ratio and the other kept fractions, loss and accuracy (on the search images) and counts of every such plan.
    """
    counts, ratios = np.array(list(seen)), cost.ratios(np.array(list(seen)))
    losses = np.array([evaluation.loss for evaluation in seen.values()])
    price = ratios[:, cost.resources.index(resource)]
    # Cheapest first, and of equally cheap ones the best: whoever lowers the loss is on the front.
    order = np.lexsort((losses, price))
    lowest = np.minimum.accumulate(losses[order])
    stays = order[np.flatnonzero(np.diff(lowest, prepend=np.inf) < 0)]
    return pd.DataFrame([_row(counts[place], ratios[place], seen, cost.resources) for place in stays])


def _row(counts: np.ndarray, ratios: np.ndarray, seen: Seen, resources: tuple[str, ...]) -> dict[str, Any]:
    evaluation = seen[tuple(counts.tolist())]
    kept = {f"{name}_ratio": float(ratio) for name, ratio in zip(resources, ratios, strict=True)}
    return kept | {"loss": evaluation.loss, "accuracy": evaluation.accuracy, "counts": counts_to_text(counts)}
