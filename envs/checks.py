"""What comes into an environment from outside, checked where it comes in: actions, losses, rewards."""

from reprlib import repr as short
from typing import Any

import numpy as np


def checked_actions(actions: Any, *shapes: tuple[int, ...]) -> np.ndarray:
    """(actions,) finite floats.

    Args:
        actions: what an agent does.
        shapes: what it may look like.

    Raises:
        ValueError: no numbers, another shape, or NaN or infinity among them.
    """
    array = _numbers(actions, "action")
    if array.shape not in shapes:
        raise ValueError(
            f"the action has shape {array.shape}: expected {' or '.join(map(str, shapes))}, one number a decision"
        )
    if not np.isfinite(array).all():
        raise ValueError(
            f"the action is {short(array.tolist())}: expected finite numbers; an agent that diverged gives others"
        )
    return array.reshape(-1)


def checked_losses(losses: Any, plans: int) -> np.ndarray:
    """(plans,) finite losses.

    Args:
        losses: what `score` has returned.
        plans: how many plans it was given.

    Raises:
        ValueError: no numbers, not one for each plan, or NaN or infinity among them.
    """
    array = _numbers(losses, "score returned")
    if array.shape != (plans,):
        raise ValueError(
            f"score returned an array of shape {array.shape} for {plans} plan{'s' * (plans > 1)}: expected ({plans},), "
            "one loss for each plan"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"score returned {short(array.tolist())}: expected finite losses, one for each plan")
    return array


def checked_reward(reward: Any) -> float:
    """A finite reward.

    Raises:
        ValueError: no number, or NaN or infinity.
    """
    array = _numbers(reward, "reward returned")
    if array.shape != () or not np.isfinite(array):
        raise ValueError(f"reward returned {short(reward)}: expected one finite number")
    return float(array)


def _numbers(given: Any, what: str) -> np.ndarray:
    told = f"{what} {short(given)}" if " " in what else f"the {what} is {short(given)}"
    if given is None:
        raise ValueError(f"{told}: expected numbers")
    try:
        return np.asarray(given, dtype=float)
    # Ragged lists, texts, mappings, and tensors that want gradients or are on another device.
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{told}: expected numbers ({error})") from None
