"""Filters of a layer -> equal groups of filters that are alike."""

from collections.abc import Callable

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

Groups = tuple[tuple[int, ...], ...]
ROUNDS = 25
"""Rounds of k-means at most; mostly it ends far earlier."""
NEIGHBOURS = 16
"""Nearest filters between which there is an edge, where each is one of the other's."""


def equal_groups(features: np.ndarray, groups: int) -> Groups:
    """k-means with clusters of one size: in every round the cheapest assignment with so many places in each.

    Args:
        features: (filters, features).
        groups: how many; the number of filters is a multiple of it.

    Returns:
        (groups, filters of each) ascending, and the groups in the order of their first filters.
    """
    size = len(features) // groups
    labels = np.full(len(features), -1)
    centres = features[_spread(features, groups)]
    for _ in range(ROUNDS):
        _, places = linear_sum_assignment(np.repeat(cdist(features, centres, "sqeuclidean"), size, axis=1))
        before, labels = labels, places // size
        if (before == labels).all():
            break
        centres = np.stack([features[labels == label].mean(0) for label in range(groups)])
    return tuple(sorted(tuple(np.flatnonzero(labels == label).tolist()) for label in range(groups)))


def _spread(features: np.ndarray, groups: int) -> list[int]:
    """Filters to begin with, each the farthest from those before it: nothing is drawn, so that runs are the same."""
    first = int(((features - features.mean(0)) ** 2).sum(1).argmax())
    chosen, away = [first], ((features - features[first]) ** 2).sum(1)
    while len(chosen) < groups:
        chosen.append(int(away.argmax()))
        away = np.minimum(away, ((features - features[chosen[-1]]) ** 2).sum(1))
    return chosen


def similarities(filters: np.ndarray) -> np.ndarray:
    """(filters, filters) half the squared inner products and half a Gaussian of the distances.

    Filters are scaled by one number so that their mean squared norm is 1, and the Gaussian has that width, so that both
    halves are of one size whatever the layer's scale.

    Args:
        filters: (filters, weights of each).
    """
    scaled = filters / np.sqrt(max(float((filters**2).sum(1).mean()), 1e-24))
    return 0.5 * (scaled @ scaled.T) ** 2 + 0.5 * np.exp(-cdist(scaled, scaled, "sqeuclidean"))


def kernel_components(filters: np.ndarray, groups: int) -> np.ndarray:
    """(filters, components) kernel principal components of the similarities, as many as there are groups at most."""
    kernel = similarities(filters)
    kernel = kernel - kernel.mean(0) - kernel.mean(1)[:, None] + kernel.mean()
    return _eigenvectors(kernel, groups)


def spectral_components(filters: np.ndarray, groups: int) -> np.ndarray:
    """(filters, components) of the graph in which filters of similar direction are neighbours of one another."""
    norms = np.maximum(np.linalg.norm(filters, axis=1, keepdims=True), 1e-12)
    away = 1 - (filters / norms) @ (filters / norms).T
    number = min(NEIGHBOURS + 1, len(filters))
    near = np.zeros_like(away, dtype=bool)
    np.put_along_axis(near, np.argsort(away, axis=1, kind="stable")[:, :number], True, axis=1)
    edges = (near & near.T).astype(float)
    np.fill_diagonal(edges, 1.0)
    root = 1 / np.sqrt(edges.sum(1))
    # The largest eigenvalues of the normalised adjacency are the smallest of the normalised Laplacian.
    found = _eigenvectors(root[:, None] * edges * root, groups, scaled=False)
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)


def _eigenvectors(matrix: np.ndarray, number: int, scaled: bool = True) -> np.ndarray:
    """(rows, number) eigenvectors of the largest eigenvalues of a symmetric matrix, times their roots if scaled."""
    values, vectors = np.linalg.eigh(matrix)
    values, vectors = values[::-1][:number], vectors[:, ::-1][:, :number]
    # Which of both signs is found is left to chance.
    vectors = vectors * np.where(np.take_along_axis(vectors, abs(vectors).argmax(0)[None], 0) < 0, -1.0, 1.0)
    return vectors * np.sqrt(np.maximum(values, 0)) if scaled else vectors


def plain(filters: np.ndarray, groups: int) -> np.ndarray:
    """The filters themselves."""
    return filters


FEATURES: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "kernel components": kernel_components,
    "spectral components": spectral_components,
    "filters": plain,
}
"""What filters are grouped by, each a candidate of the vote. Where there is no vote the first one is taken."""
