"""Kept counts: as a key, as text, and as the mask that keeps the best-scoring channels."""

from collections.abc import Container, Iterable

import numpy as np

from rlprune.graph.structure import Graph


def plan_key(counts: Iterable[int]) -> tuple[int, ...]:
    """What kept counts are remembered by."""
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
        counts: (groups,) how many stay.
        scores: (all groups' channels,) from a criterion.

    Returns:
        (all groups' channels,) bool.
    """
    stays = np.zeros(len(scores), dtype=bool)
    for mine, values, count in zip(graph.split(stays), graph.split(scores), counts, strict=True):
        mine[np.argsort(-values, kind="stable")[: int(count)]] = True
    return stays
