import math

import pytest
import torch

from rlprune.exports.agreement import relative_error


def test_relative_to_the_largest_output_above_one() -> None:
    small, large = torch.tensor([[0.1, -0.2]]), torch.tensor([[100.0, -400.0]])
    assert relative_error(small + 0.01, small) == pytest.approx(0.01)
    assert relative_error(large + 0.5, large) == pytest.approx(0.5 / 400)
    assert math.isnan(relative_error(torch.tensor([float("nan")]), torch.ones(1)))
