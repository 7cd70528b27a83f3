"""The reward model predicts plans it has not seen, and knows where it does not know."""

import numpy as np
import pytest

from rlprune.agents.search.surrogate import NARROW, SELDOM, OneShotSurrogate, narrowest, plan_features
from rlprune.envs.decisions.base import Columns

SIZES = np.array([32, 32, 32, 64])


def foretell(keep: np.ndarray) -> np.ndarray:
    """The additive part of the truth."""
    return np.log(1 / keep) @ np.array([0.5, 0.2, 0.1, 0.05])


def truth(counts: np.ndarray) -> np.ndarray:
    """Additive in the log ratios with one interaction, as losses of pruned networks roughly are."""
    logs = np.log(counts / SIZES)
    return 2 - logs @ np.array([0.5, 0.2, 0.1, 0.05]) + 0.1 * logs[:, 0] * logs[:, 1]


def draw(number: int, seed: int, low: float = 0.2) -> np.ndarray:
    ratios = np.random.default_rng(seed).uniform(low, 1, (number, 4))
    return np.maximum((ratios * SIZES).astype(int), 1)


def test_predicts_plans_it_has_not_seen() -> None:
    model = OneShotSurrogate(SIZES, foretell)
    known, new = draw(80, 0), draw(50, 1)
    model.fit([(known, truth(known))])
    mean, deviation = model.predict(new)
    assert np.corrcoef(mean, truth(new))[0, 1] > 0.97
    np.testing.assert_allclose(model.mean(new), mean, rtol=1e-6)
    assert (deviation > 0).all()


def test_is_less_sure_far_away() -> None:
    model = OneShotSurrogate(SIZES, foretell)
    known = draw(60, 0, low=0.6)
    model.fit([(known, truth(known))])
    _, near = model.predict(draw(20, 1, low=0.6))
    _, far = model.predict(np.array([[1, 1, 1, 1]]))
    assert far[0] > 3 * near.mean()


def test_one_terrible_plan_does_not_stretch_the_scale() -> None:
    model = OneShotSurrogate(SIZES, foretell)
    known, new = draw(80, 0), draw(50, 1)
    losses = truth(known)
    losses[3] = 1e3
    model.fit([(known, losses)])
    assert np.corrcoef(model.mean(new), truth(new))[0, 1] > 0.9


def test_equal_losses_are_no_trouble() -> None:
    model = OneShotSurrogate(SIZES, foretell)
    known = draw(10, 0)
    model.fit([(known, np.full(10, 0.25))])
    assert model.mean(known) == pytest.approx(np.full(10, 0.25), abs=1e-3)


def test_plans_of_two_budgets_teach_one_model() -> None:
    """Losses of the second are those of the first, doubled and moved: what is learnt from one serves the other."""
    model = OneShotSurrogate(SIZES, foretell)
    first, second, new = draw(80, 0), draw(12, 2), draw(50, 1)
    model.fit([(first, truth(first)), (second, 2 * truth(second) + 5)])
    assert np.corrcoef(model.mean(new, 1), truth(new))[0, 1] > 0.95
    assert model.mean(new, 1).mean() == pytest.approx((2 * truth(new) + 5).mean(), rel=0.1)


def test_a_choice_is_told_apart_and_a_quantity_is_seen_as_it_is() -> None:
    """Four groups; behind their counts a choice among three in the first, and the bits of the second."""
    columns = Columns((0, 8), (3, 1))
    plans = np.array([[32, 16, 8, 32, 0, 8], [32, 16, 8, 32, 2, 4]])
    features = plan_features(plans, np.full(4, 32), (), columns)
    np.testing.assert_allclose(features[:, :4], np.log([[1, 0.5, 0.25, 1]] * 2))
    assert features[:, 4:].tolist() == [[0, 0, 8], [0, 1, 4]]
    assert narrowest(4, (), columns).tolist() == [NARROW] * 4 + [SELDOM, SELDOM, NARROW]


def test_a_choice_is_learnt() -> None:
    columns, rng = Columns((0, 0), (3, 3)), np.random.default_rng(0)
    plans = np.column_stack([draw(140, 0), rng.integers(3, size=(140, 2))])
    losses = truth(plans[:, :4]) + np.array([0.0, 0.5, -0.4])[plans[:, 4]] + np.array([0.0, -0.6, 0.3])[plans[:, 5]]
    model = OneShotSurrogate(SIZES, foretell, columns=columns)
    model.fit([(plans[:90], losses[:90])])
    assert np.corrcoef(model.mean(plans[90:]), losses[90:])[0, 1] > 0.95


def test_a_choice_that_was_never_measured_is_unknown_and_no_more() -> None:
    """The forecast of what nobody tried stays within the losses that are known, and is less sure."""
    plans = np.column_stack([draw(60, 0), np.zeros((60, 1), dtype=np.int64)])
    model = OneShotSurrogate(SIZES, foretell, columns=Columns((0,), (2,)))
    model.fit([(plans, truth(plans[:, :4]))])
    other = plans.copy()
    other[:, 4] = 1
    (mean, doubt), (_, known) = model.predict(other), model.predict(plans)
    assert (doubt > known).all()
    assert truth(plans[:, :4]).min() - 0.1 < mean.min()
