"""Inputs of every form; outputs are tried in `test_tracer`, where they end a network."""

import torch
from torch import Tensor, nn

from rlprune.tracing.examples import call, output_tensors, plain


def test_examples() -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor, y: Tensor | int = 1) -> Tensor:
            return x + 2 * y

    one = torch.ones(1)
    assert call(Sum(), one).item() == 3
    assert call(Sum(), (one, one * 2)).item() == 5
    assert call(Sum(), {"y": one * 3, "x": one}).item() == 7


def test_a_tensor_in_a_class_of_its_own_is_the_same_numbers() -> None:
    class Own(Tensor):
        pass

    numbers = torch.arange(3.0)
    assert type(plain(numbers.as_subclass(Own))) is Tensor
    assert plain(numbers.as_subclass(Own)).equal(numbers)
    assert plain(numbers) is numbers
    assert plain("text") == "text"


def test_outputs_that_hold_themselves() -> None:
    output: list[object] = [torch.ones(1)]
    output += [output, {"again": output}]
    assert len(output_tensors(output)) == 1
