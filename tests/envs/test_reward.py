"""Rewards are read as they are written."""

import pytest

from rlprune.envs.reward import parse_reward
from rlprune.errors import UserError


def test_loss() -> None:
    weights, balance = parse_reward("loss")
    assert (weights.tolist(), balance) == ([0, 0], False)


def test_balance() -> None:
    weights, balance = parse_reward("balance:macs=2,params=0.5")
    assert (weights.tolist(), balance) == ([2, 0.5], True)
    assert parse_reward("balance:params=1")[0].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("balence:macs=1", "unknown reward"),
        ("loss:macs=1", "unknown reward"),
        ("balance:mac=1", "did you mean 'macs'"),
        ("balance:macs=much", "'much' is not a number"),
        ("balance:macs=-1", "at least 0"),
        ("balance:macs=inf", "at least 0"),
        ("balance:macs=0,params=0", "one of them above"),
        ("balance", "one of them above"),
    ],
)
def test_bad_rewards(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_reward(text)
