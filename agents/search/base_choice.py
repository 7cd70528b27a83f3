"""Which of the base plans a search walks: the one with the best one-shot loss, where such losses say anything."""

from collections.abc import Callable, Sequence

import numpy as np

from rlprune.envs.episode import EpisodeSpec
from rlprune.plans.counts import plan_key

Tune = Callable[[Sequence[np.ndarray]], Sequence[float]]
"""Plans, each (groups,) kept counts -> their losses after a brief fine-tuning."""
NEAR_CHANCE = 0.1
"""Share of the loss of chance that the best plan must have gained on it. A network that has lost nine tenths of what
there is to know is all but destroyed: what counts is how it recovers, of which the rest tells nothing."""
ERRORS = 2.0
"""Standard errors of their difference by which the best plan must be ahead of the next."""


def best_kind(kinds: Sequence[Sequence[EpisodeSpec]], images: int, chance: float, tune: Tune | None = None) -> int:
    """The place of the kind of base plans that is best over all budgets.

    Args:
        kinds: for every budget the episodes around its base plans, one a kind, with the values of these.
        images: that losses were measured on.
        chance: loss of a network that knows nothing.
        tune: decides under a single budget where one-shot losses say nothing; None where they have to do.
    """
    values = np.array([[spec.base_value for spec in specs] for specs in kinds])
    specs, plans = kinds[0], [spec.base_plan() for spec in kinds[0]]
    several = len({plan_key(plan) for plan in plans}) > 1
    if tune is None or len(kinds) > 1 or not several or tells(-values[0], images, chance):
        return int(np.argmax(values.mean(axis=0)))
    losses = np.array(tune(plans))
    return int(
        np.argmax([spec.value(plan[None], loss)[0] for spec, plan, loss in zip(specs, plans, losses, strict=True)])
    )


def tells(losses: np.ndarray, images: int, chance: float) -> bool:
    """Whether one-shot losses tell the best plan from the others.

    What a calibrated network gains on chance is the mean over the images of a log likelihood ratio. Where it is small,
    that of a signal in Gaussian noise, its variance is twice its mean; where it is large it is less than that.

    Args:
        losses: (plans,) mean cross-entropies, at the best temperature.
        images: that they were measured on.
        chance: loss of a network that knows nothing.
    """
    gains = np.sort(np.maximum(chance - losses, 0))
    error = np.sqrt(2 * (gains[-1] + gains[-2]) / images)
    return bool(gains[-1] > NEAR_CHANCE * chance and gains[-1] - gains[-2] > ERRORS * error)
