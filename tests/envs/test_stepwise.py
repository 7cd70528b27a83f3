"""A forward pass in steps is the forward pass."""

import numpy as np
import pytest
import torch
from gated import Made, gate, images, network

from rlprune.envs.stepwise import PausedForward
from rlprune.gating.gate import KeepRatios


def ratio(number: int) -> KeepRatios:
    return KeepRatios(np.full(2, 0.3 + 0.05 * number), np.full(2, 0.8))


def steps(paused: PausedForward, made: Made) -> list[int]:
    asked, numbers = paused.start(lambda decide: made.gated(images(2), decide)), []
    while asked is not None:
        numbers.append(asked[0])
        asked = paused.tell(ratio(asked[0]))
    return numbers


def test_it_gives_what_calling_back_gives() -> None:
    made, paused = gate(network("vgg11")), PausedForward()
    for _ in range(2):
        assert steps(paused, made) == list(range(8))
        with torch.no_grad():
            expected = made.gated(images(2), lambda number, *_: ratio(number))
        torch.testing.assert_close(paused.result(), expected, rtol=0, atol=0)
        paused.close()


def test_a_pass_can_be_given_up() -> None:
    made, paused = gate(network("vgg11")), PausedForward()
    for _ in range(3):
        paused.start(lambda decide: made.gated(images(2), decide))
        paused.tell(ratio(0))
    assert steps(paused, made) == list(range(8))
    paused.start(lambda decide: made.gated(images(2), decide))
    paused.close()


def test_what_goes_wrong_in_the_pass_is_told() -> None:
    paused = PausedForward()

    def broken(decide: object) -> torch.Tensor:
        raise ZeroDivisionError("in the network")

    with pytest.raises(ZeroDivisionError, match="in the network"):
        paused.start(broken)
    paused.close()


def test_a_pass_without_gates_is_over_at_once() -> None:
    paused = PausedForward()
    assert paused.start(lambda decide: torch.ones(1)) is None
    assert paused.result() == 1
    paused.close()


def test_nobody_is_told_who_does_not_ask() -> None:
    """An answer to nobody would wait for ever."""
    made, paused = gate(network("vgg11")), PausedForward()
    with pytest.raises(ValueError, match=r"^no forward pass is waiting"):
        paused.tell(ratio(0))
    steps(paused, made)
    with pytest.raises(ValueError, match=r"^no forward pass is waiting"):
        paused.tell(ratio(0))
    paused.close()
