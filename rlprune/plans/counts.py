"""Plans as searches have them: as a key, as text, and as the mask that keeps the best-scoring channels.

A plan is the kept counts of all groups, behind which may stand what else was decided; first of all, where there are
several criteria, the number of every group's.
"""

from collections.abc import Container, Iterable

import numpy as np

from rlprune.graph.structure import Graph


def plan_key(counts: Iterable[int]) -> tuple[int, ...]:
    """What a plan is remembered by."""
    return tuple(int(count) for count in counts)


def not_in(seen: Container[tuple[int, ...]], plans: Iterable[np.ndarray]) -> list[np.ndarray]:
    """The plans, (groups,) kept channels each, that are not remembered yet, each once and in their order."""
    return list({key: counts for counts in plans if (key := plan_key(counts)) not in seen}.values())


def counts_to_text(counts: Iterable[int]) -> str:
    """Kept counts as a cell of a table."""
    return " ".join(map(str, plan_key(counts)))


def text_to_key(text: str) -> tuple[int, ...]:
    """What `counts_to_text` has written, as `plan_key` has it."""
    return tuple(map(int, text.split()))


def top_mask(graph: Graph, counts: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Keep the highest-scoring channels of every group.

    Args:
        graph: structure of the network.
        counts: (groups,) how many stay; behind them, where there are several criteria, the number of every group's.
        scores: (all groups' channels,) from a criterion, or (criteria, all groups' channels).

    Returns:
        (all groups' channels,) bool.
    """
    scores = scores_of(graph, counts, scores)
    stays = np.zeros(len(scores), dtype=bool)
    for mine, values, count in zip(graph.split(stays), graph.split(scores), counts[: len(graph.groups)], strict=True):
        mine[np.argsort(-values, kind="stable")[: int(count)]] = True
    return stays


def scores_of(graph: Graph, plan: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(all groups' channels,) scores by which a plan keeps channels: of several criteria those of every group's own.

    Args:
        graph: structure of the network.
        plan: as for `top_mask`; the first criterion counts where it is kept counts alone.
        scores: as for `top_mask`.
    """
    groups = len(graph.groups)
    if scores.ndim == 1:
        return scores
    if len(plan) == groups:
        return np.asarray(scores[0])
    return np.asarray(scores[np.repeat(plan[groups : 2 * groups], graph.sizes), np.arange(scores.shape[1])])
