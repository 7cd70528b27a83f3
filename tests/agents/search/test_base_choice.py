"""Base plans are told apart by one-shot losses where these say something, and by brief tunings where they do not."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import make_spec

from rlprune.agents.search.base_choice import best_kind, tells
from rlprune.envs.episode import EpisodeSpec
from rlprune.tasks.classification import calibrated

CHANCE = math.log(10)


def draws(signal: float, images: int, networks: int) -> np.ndarray:
    """(networks,) calibrated losses on ten classes: logits are a signal at the right one and noise of deviation 1."""
    found = []
    for seed in range(networks):
        torch.manual_seed(seed)
        labels = torch.arange(images) % 10
        logits = torch.randn(images, 10)
        logits[torch.arange(images), labels] += signal
        found.append(calibrated(logits * 3, labels).loss)
    return np.array(found)


@pytest.mark.parametrize("signal", [0.2, 0.4, 0.8])
def test_noise_of_a_small_gain_is_what_the_rule_assumes(signal: float) -> None:
    """The deviation of the mean loss over many draws of 500 images, against that of a gain of `signal` squared / 2."""
    losses = draws(signal, 500, 200)
    gain = CHANCE - losses.mean()
    assert losses.std() == pytest.approx(math.sqrt(2 * gain / 500), rel=0.25)


@pytest.mark.parametrize(
    ("losses", "images", "told"),
    [
        ((2.291, 2.268), 500, False),  # near chance, and the rule is 1.9 points better after three epochs
        ((2.268, 2.303), 10**6, False),  # enough images, but all is near chance
        ((2.018, 2.008), 500, False),  # a standard error is 0.05
        ((2.018, 2.008), 40_000, False),  # a standard error is 0.0054
        ((2.018, 2.008), 60_000, True),
        ((1.2, 1.8), 500, True),
        ((1.2, 1.8, 1.21), 500, False),  # the two best of three
        ((5.0, 1.2), 500, True),
        ((5.0, 4.0), 500, False),  # worse than chance
    ],
)
def test_when_losses_tell(losses: tuple[float, ...], images: int, told: bool) -> None:
    assert tells(np.array(losses), images, CHANCE) == told


def episodes(*losses: float) -> list[EpisodeSpec]:
    """Around base plans of 6, 5, … channels in the first group, whose losses are given."""
    bases = [(6.0 - place, 4.0, 4.0) for place in range(len(losses))]
    return [replace(make_spec(base=base), base_value=-loss) for base, loss in zip(bases, losses, strict=True)]


class Tuner:
    """Leaves losses that fall with the channels of the first group."""

    def __init__(self) -> None:
        self.plans: list[list[int]] = []

    def __call__(self, plans: Sequence[np.ndarray]) -> list[float]:
        self.plans += [plan.tolist() for plan in plans]
        return [1 / plan[0] for plan in plans]


def test_a_brief_tuning_of_each_decides_where_losses_say_nothing() -> None:
    tune, kinds = Tuner(), episodes(2.291, 2.268)
    assert best_kind([kinds], 500, CHANCE) == 1
    assert best_kind([kinds], 500, CHANCE, tune) == 0
    assert tune.plans == [kind.base_plan().tolist() for kind in kinds]


def test_what_is_charged_for_cost_counts_after_tunings_too() -> None:
    """The first plan has the lower loss, and more of the MACs, by 0.1 at least, than 10 times that makes up for."""
    first, second = (replace(spec, weights=np.array([10.0, 0.0]), balance=True) for spec in episodes(2.29, 2.28))
    assert best_kind([[first, second]], 500, CHANCE, Tuner()) == 1


@pytest.mark.parametrize(
    "kinds",
    [
        [episodes(1.8, 1.2)],  # told apart
        [episodes(2.291, 2.268), episodes(2.29, 2.26)],  # a range
        [[episodes(2.29)[0]] * 2],  # one and the same plan
        [episodes(2.29)],  # one kind
    ],
)
def test_otherwise_nothing_is_tuned(kinds: list[list[EpisodeSpec]]) -> None:
    tune = Tuner()
    best = best_kind(kinds, 500, CHANCE, tune)
    values = np.mean([[spec.base_value for spec in specs] for specs in kinds], axis=0)
    assert best == int(np.argmax(values))
    assert not tune.plans
