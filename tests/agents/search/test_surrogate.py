"""The reward model predicts plans it has not seen, and knows where it does not know."""

import numpy as np
import pytest

from rlprune.agents.search.surrogate import OneShotSurrogate

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
