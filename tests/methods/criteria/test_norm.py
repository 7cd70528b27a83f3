"""Norms that can be worked out by hand."""

import numpy as np
import pytest
import torch
from scoring import conv, head, scores_of
from torch import nn

from rlprune.errors import UserError

FILTERS = torch.tensor([[1.0, 1.0, 0.0], [4.0, 0.0, 0.0], [0.0, -9.0, 4.0]])


@pytest.mark.parametrize(
    ("p", "norms"), [("1", [2, 4, 13]), ("2", [2**0.5, 4, 97**0.5]), ("0.5", [4, 4, 25]), ("inf", [1, 4, 9])]
)
def test_norms(p: str, norms: list[float]) -> None:
    net = nn.Sequential(conv(FILTERS), *head(3)).eval()
    assert scores_of(f"norm:p={p}", net)["0"] == pytest.approx(np.array(norms) / np.mean(norms))


def test_the_scale_of_a_layer_does_not_count() -> None:
    scores = [scores_of("norm:p=3", nn.Sequential(conv(FILTERS * scale), *head(3)).eval())["0"] for scale in (1, -7)]
    assert scores[0] == pytest.approx(scores[1])


@pytest.mark.parametrize("p", ["0", "-1", "nan"])
def test_what_is_no_norm(p: str) -> None:
    with pytest.raises(UserError, match=f"criterion norm:p={p}: expected p above 0, such as 1, 2 or inf"):
        scores_of(f"norm:p={p}", nn.Sequential(conv(FILTERS), *head(3)).eval())
