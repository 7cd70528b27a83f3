"""Groupings of filters that can be told by hand, and against every grouping there is."""

import itertools

import numpy as np
import pytest
from sklearn.decomposition import KernelPCA

from rlprune.methods.units.base_grouping import FEATURES, Groups, equal_groups, kernel_components, similarities


def spread(features: np.ndarray, groups: Groups) -> float:
    """The sum of squared distances to the centres."""
    return sum(float(((features[list(group)] - features[list(group)].mean(0)) ** 2).sum()) for group in groups)


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_equal_and_nearly_the_best(seed: int) -> None:
    features = np.random.default_rng(seed).normal(size=(8, 2))
    found = equal_groups(features, 2)
    assert sorted(sum(found, ())) == list(range(8))
    assert [len(group) for group in found] == [4, 4]
    halves = [(half, tuple(set(range(8)) - set(half))) for half in itertools.combinations(range(8), 4)]
    every = sorted(spread(features, groups) for groups in halves)
    assert spread(features, found) <= every[len(every) // 10]
    # No exchange of two filters is better for the centres that there are.
    centres = [features[list(group)].mean(0) for group in found]
    for one, two in itertools.product(*found):
        now = sum(((features[i] - c) ** 2).sum() for i, c in zip((one, two), centres, strict=True))
        then = sum(((features[i] - c) ** 2).sum() for i, c in zip((two, one), centres, strict=True))
        assert now <= then + 1e-12


@pytest.mark.parametrize("name", FEATURES)
def test_families_of_filters_are_found(name: str) -> None:
    """Four families of filters along directions of their own, each with as many as are neighbours."""
    rng = np.random.default_rng(1)
    family = rng.permutation(np.repeat(np.arange(4), 17))
    filters = 3 * np.eye(4, 12)[family] + 0.05 * rng.normal(size=(68, 12))
    expected = {tuple(np.flatnonzero(family == number).tolist()) for number in range(4)}
    assert set(equal_groups(FEATURES[name](filters, 4), 4)) == expected


def test_kernel_components_are_those_of_another_library() -> None:
    filters = np.random.default_rng(2).normal(size=(12, 9))
    theirs = KernelPCA(4, kernel="precomputed").fit_transform(similarities(filters))
    ours = kernel_components(filters, 4)
    assert np.abs(np.abs(ours) - np.abs(theirs)).max() < 1e-6
    # Where a layer is scaled as a whole nothing changes.
    assert np.allclose(kernel_components(100 * filters, 4), ours)


def test_filters_that_are_all_zero_are_grouped_too() -> None:
    for features in FEATURES.values():
        assert len(equal_groups(features(np.zeros((8, 9)), 4), 4)) == 4
