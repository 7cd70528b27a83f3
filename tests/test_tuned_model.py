"""From few tunings and many one-shot losses, the model orders plans that nobody has tuned."""

import numpy as np
import pytest

from rlprune.agents.tuned_model import TunedModel

SIZES = np.array([32, 32, 32, 64])


def oneshot(counts: np.ndarray) -> np.ndarray:
    """The cheap loss: it knows half of the truth."""
    return 2 - np.log(counts / SIZES) @ np.array([0.5, 0.2, 0.0, 0.0])


def truth(counts: np.ndarray) -> np.ndarray:
    logs = np.log(counts / SIZES)
    return 0.5 * oneshot(counts) - logs @ np.array([0.0, 0.0, 0.3, 0.1]) + 0.1 * logs[:, 2] ** 2


def draw(number: int, seed: int, low: float = 0.2) -> np.ndarray:
    ratios = np.random.default_rng(seed).uniform(low, 1, (number, 4))
    return np.maximum((ratios * SIZES).astype(int), 1)


def test_two_dozen_noisy_tunings_order_plans_that_were_not_tuned() -> None:
    model, known, new = TunedModel(SIZES, oneshot), draw(24, 0), draw(100, 1)
    noise = np.random.default_rng(2).normal(0, 0.02, len(known))
    model.fit([(known, truth(known) + noise)])
    mean, deviation = model.predict(new)
    assert np.corrcoef(mean, truth(new))[0, 1] > 0.97
    assert np.corrcoef(oneshot(new), truth(new))[0, 1] < 0.9  # what the cheap loss alone would tell
    np.testing.assert_allclose(model.mean(new), mean, rtol=1e-6)
    assert (deviation > 0).all()


def test_is_less_sure_far_away() -> None:
    model, known = TunedModel(SIZES, oneshot), draw(24, 0, low=0.6)
    model.fit([(known, truth(known))])
    _, near = model.predict(draw(20, 1, low=0.6))
    _, far = model.predict(np.array([[1, 1, 1, 1]]))
    assert far[0] > 3 * near.mean()


def test_a_lucky_tuning_is_not_believed() -> None:
    """Twice the same spot, once with luck: what is expected there lies between."""
    known = np.concatenate([draw(30, 0), np.array([[16, 16, 16, 32], [16, 16, 16, 33]])])
    losses = truth(known) + np.random.default_rng(3).normal(0, 0.1, len(known))
    losses[-1] = losses.min() - 0.5
    model = TunedModel(SIZES, oneshot)
    model.fit([(known, losses)])
    assert losses[-1] + 0.2 < model.mean(known[-1:])[0]


def test_one_tuning_is_enough_to_begin_with() -> None:
    model, known = TunedModel(SIZES, oneshot), draw(1, 0)
    model.fit([(known, truth(known))])
    assert model.mean(known)[0] == pytest.approx(truth(known)[0])
