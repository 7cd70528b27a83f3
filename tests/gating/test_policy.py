"""The policy in NumPy is the one in PyTorch, whatever it remembers."""

import numpy as np
import pytest
import torch
from torch import nn

from rlprune.gating.policy import CONTEXT, ENCODED, KeepPolicy, arrays, think

INPUTS, CHANNELS = (3, 8, 5), (8, 6, 4)


@pytest.mark.parametrize("recurrent", [False, True])
def test_the_fast_policy_is_the_policy(recurrent: bool) -> None:
    torch.manual_seed(0)
    policy = KeepPolicy(INPUTS, CHANNELS, recurrent)
    nn.init.normal_(policy.head.weight)
    memory, fast = None, None
    for number, (inputs, channels) in enumerate(zip(INPUTS, CHANNELS, strict=True)):
        seen = torch.randn(5, inputs), torch.randn(5, channels), torch.randn(5, CONTEXT)
        with torch.no_grad():
            expected, memory = policy(number, *seen, memory)
        found, fast = policy.act(number, *(each.numpy() for each in seen), fast)
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-6)
    assert (memory is not None) == (fast is not None) == recurrent


def test_what_was_seen_before_counts() -> None:
    torch.manual_seed(0)
    policy = KeepPolicy(INPUTS, CHANNELS, recurrent=True)
    nn.init.normal_(policy.head.weight)
    first, second = (np.random.default_rng(number).normal(size=(2, 11)).astype(np.float32) for number in (0, 1))
    context = np.zeros((2, CONTEXT), dtype=np.float32)
    _, memory = policy.act(0, first[:, :3], first[:, 3:], context)
    _, other = policy.act(0, second[:, :3], second[:, 3:], context)
    later = [policy.act(1, np.ones((2, 8), np.float32), np.ones((2, 6), np.float32), context, m)[0]
             for m in (memory, other)]  # fmt: skip
    assert not np.allclose(*later)


def test_an_lstm_by_hand() -> None:
    cell = nn.LSTMCell(1, ENCODED)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        # In, forget, candidate, out: of one number that is seen, and of nothing that was put out.
        for place, weight in enumerate((1.0, 2.0, 3.0, 4.0)):
            cell.weight_ih[place * ENCODED : (place + 1) * ENCODED] = weight
    put_out, memory = think(arrays(cell), np.array([0.5]), (np.ones(ENCODED), np.full(ENCODED, 0.25)))
    sigmoid = lambda value: 1 / (1 + np.exp(-value))  # noqa: E731
    kept = sigmoid(1.0) * 0.25 + sigmoid(0.5) * np.tanh(1.5)
    np.testing.assert_allclose(put_out, sigmoid(2.0) * np.tanh(kept))
    assert memory is not None
    np.testing.assert_allclose(memory[1], kept)


def test_one_image_is_a_row_of_a_batch() -> None:
    torch.manual_seed(0)
    hidden = arrays(nn.LSTMCell(7, ENCODED))
    seen = np.random.default_rng(0).normal(size=(4, 7)).astype(np.float32)
    together, memory = think(hidden, seen, None)
    alone, _ = think(hidden, seen[2], None)
    np.testing.assert_allclose(alone, together[2], rtol=1e-5)
    assert memory is not None
    again, _ = think(hidden, seen[1], (memory[0][2], memory[1][2]))
    np.testing.assert_allclose(again, think(hidden, seen[[1] * 4], memory)[0][2], rtol=1e-5)
