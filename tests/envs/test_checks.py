"""What agents and scores may hand over, and what is said where they hand over something else."""

from typing import Any

import numpy as np
import pytest
import torch

from rlprune.envs.checks import checked_actions, checked_losses, checked_reward


@pytest.mark.parametrize("given", [[0.5], (0.5,), np.array([0.5], dtype=np.float32), torch.tensor([0.5])])
def test_one_number_in_any_form(given: Any) -> None:
    assert checked_actions(given, (1,)).tolist() == [0.5]
    assert checked_losses(given, 1).tolist() == [0.5]


def test_several_shapes_may_be_right() -> None:
    for given in ([[1.0], [2.0]], [1.0, 2.0]):
        assert checked_actions(given, (2, 1), (2,)).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([float("nan")], r"^the action is \[nan\]: expected finite numbers"),
        ([-np.inf], r"^the action is \[-inf\]: expected finite numbers"),
        (0.5, r"^the action has shape \(\): expected \(1,\)"),
        ([0.5, 0.5], r"^the action has shape \(2,\): expected \(1,\)"),
        ([[0.5]], r"^the action has shape \(1, 1\): expected \(1,\)"),
        ([], r"^the action has shape \(0,\): expected \(1,\)"),
        (None, "^the action is None: expected numbers"),
        (["left"], r"^the action is \['left'\]: expected numbers"),
        ({"keep": 1}, "^the action is {'keep': 1}: expected numbers"),
        ([[1], [2, 3]], r"^the action is \[\[1\], \[2, 3\]\]: expected numbers"),
    ],
)
def test_wrong_actions(given: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        checked_actions(given, (1,))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "^score returned None: expected numbers"),
        ([1.0], r"^score returned an array of shape \(1,\) for 2 plans: expected \(2,\)"),
        ([1.0, 2.0, 3.0], r"shape \(3,\) for 2 plans: expected \(2,\)"),
        ([[1.0, 2.0]], r"shape \(1, 2\) for 2 plans: expected \(2,\)"),
        (1.0, r"shape \(\) for 2 plans: expected \(2,\)"),
        ([1.0, float("nan")], r"^score returned \[1.0, nan\]: expected finite losses"),
        (["good", "bad"], r"^score returned \['good', 'bad'\]: expected numbers"),
        (torch.ones(2, requires_grad=True), "^score returned .*: expected numbers"),
    ],
)
def test_wrong_losses(given: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        checked_losses(given, 2)


def test_a_reward_is_one_number() -> None:
    assert checked_reward(np.float32(0.5)) == checked_reward(0.5) == 0.5
    for given in (None, [1.0, 2.0], float("nan"), "good"):
        with pytest.raises(ValueError, match=r"^reward returned .*: expected"):
            checked_reward(given)


def test_a_long_array_is_told_shortly() -> None:
    with pytest.raises(ValueError, match=r"\.\.\.\]") as caught:
        checked_actions(np.full(500, np.nan), (500,))
    assert len(str(caught.value)) < 200
