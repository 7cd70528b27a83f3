"""From few tunings and many one-shot losses, the model orders plans that nobody has tuned."""

import numpy as np
import pytest

from rlprune.agents.search.fidelity_surrogate import FidelitySurrogate

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
    model, known, new = FidelitySurrogate(SIZES, oneshot), draw(24, 0), draw(100, 1)
    noise = np.random.default_rng(2).normal(0, 0.02, len(known))
    model.fit([(known, truth(known) + noise)])
    mean, deviation = model.predict(new)
    assert np.corrcoef(mean, truth(new))[0, 1] > 0.97
    assert np.corrcoef(oneshot(new), truth(new))[0, 1] < 0.9  # what the cheap loss alone would tell
    np.testing.assert_allclose(model.mean(new), mean, rtol=1e-6)
    assert (deviation > 0).all()


def test_a_block_that_is_out_is_no_infinity() -> None:
    """The last group goes with its block; without it a tuning is worth 1 less, which no cheap loss says."""
    known, new = draw(40, 0), draw(40, 1)
    for plans in (known, new):
        plans[::2, 3] = 0

    def cheap(plans: np.ndarray) -> np.ndarray:
        return oneshot(np.maximum(plans, 1))

    def tuned(plans: np.ndarray) -> np.ndarray:
        return np.asarray(cheap(plans) - (plans[:, 3] == 0))

    model = FidelitySurrogate(SIZES, cheap, blocks=((3,),))
    model.fit([(known, tuned(known))])
    np.testing.assert_allclose(model.mean(new), tuned(new), atol=0.1)


def test_is_less_sure_far_away() -> None:
    model, known = FidelitySurrogate(SIZES, oneshot), draw(24, 0, low=0.6)
    model.fit([(known, truth(known))])
    _, near = model.predict(draw(20, 1, low=0.6))
    _, far = model.predict(np.array([[1, 1, 1, 1]]))
    assert far[0] > 3 * near.mean()


def test_a_lucky_tuning_is_not_believed() -> None:
    """Twice the same spot, once with luck: what is expected there lies between."""
    known = np.concatenate([draw(30, 0), np.array([[16, 16, 16, 32], [16, 16, 16, 33]])])
    losses = truth(known) + np.random.default_rng(3).normal(0, 0.1, len(known))
    losses[-1] = losses.min() - 0.5
    model = FidelitySurrogate(SIZES, oneshot)
    model.fit([(known, losses)])
    assert losses[-1] + 0.2 < model.mean(known[-1:])[0]


def longer(counts: np.ndarray) -> np.ndarray:
    """What a longer tuning leaves: half of the differences, and one of its own."""
    return 0.3 + 0.5 * truth(counts) - 0.2 * np.log(counts[:, 3] / SIZES[3])


def test_a_few_longer_tunings_correct_what_many_brief_ones_tell() -> None:
    """Four longer ones beside thirty brief ones say more than either alone, on the right scale."""
    known, new, rng = draw(30, 0), draw(100, 1), np.random.default_rng(2)
    brief = known, truth(known) + rng.normal(0, 0.02, len(known))
    few = known[:4]
    both, alone, before = (FidelitySurrogate(SIZES, oneshot, *given) for given in ([brief], [], []))
    for model in (both, alone):
        model.fit([(few, longer(few))])
    before.fit([brief])
    wrong = {name: np.abs(model.mean(new) - longer(new)).mean() for name, model in (("both", both), ("alone", alone))}
    assert wrong["both"] < 0.8 * wrong["alone"]
    told = {
        name: np.corrcoef(model.mean(new), longer(new))[0, 1] for name, model in (("both", both), ("before", before))
    }
    assert told["both"] > told["before"]
    # What was measured is believed more than what it was foretold to be.
    np.testing.assert_allclose(both.mean(few), longer(few), atol=0.05)


def test_one_longer_tuning_shifts_the_brief_ones() -> None:
    """Of two plans that differ by 0.1 after a brief tuning half is taken to be left after a longer one."""
    known = draw(30, 0)
    model = FidelitySurrogate(SIZES, oneshot, (known, truth(known)))
    model.fit([(known[:1], truth(known[:1]) - 1)])
    mean, middle = model.mean(known), np.median(truth(known))
    good = truth(known) < middle
    assert np.polyfit(truth(known)[good], mean[good], 1)[0] == pytest.approx(0.5, abs=0.1)
    assert mean[0] == pytest.approx(truth(known[:1])[0] - 1, abs=0.05)


def test_one_tuning_is_enough_to_begin_with() -> None:
    model, known = FidelitySurrogate(SIZES, oneshot), draw(1, 0)
    model.fit([(known, truth(known))])
    assert model.mean(known)[0] == pytest.approx(truth(known)[0])
