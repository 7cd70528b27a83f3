"""Scores by several criteria, each computed once, and by one for each group."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rlprune.errors import UserError
from rlprune.methods.criteria.base_choice import criteria_of, fixed_criteria, score_by
from rlprune.methods.criteria.l1 import L1
from rlprune.tracing.build import build_graph


class Net(nn.Module):
    """Three groups of two channels; the filters of each are (1, 1) and (0, 1.5): the first by l1, the second by l2."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleList([nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)])
        self.tail, self.last = nn.Conv2d(2, 2, 1), nn.Linear(2, 2)
        with torch.no_grad():
            for layer in (*self.body, self.tail):
                layer.weight.copy_(torch.tensor([[1.0, 1.0], [0.0, 1.5]])[..., None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (*self.body, self.tail):
            x = layer(x).relu()
        return self.last(x.mean((2, 3)))


NET: Any = Net().eval()
GRAPH = build_graph(NET, torch.zeros(1, 2, 2, 2))
BATCH = torch.randn(4, 2, 2, 2), torch.arange(4) % 2
BY_L1, BY_L2 = np.array([2, 1.5]) / 1.75, np.array([np.sqrt(2), 1.5]) / ((np.sqrt(2) + 1.5) / 2)


def test_several_are_rows_and_each_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, score = [], L1.score

    def counted(self: L1, *facts: Any) -> np.ndarray:
        calls.append(self)
        return score(self, *facts)

    monkeypatch.setattr(L1, "score", counted)
    scores = score_by("l1,l2", NET, GRAPH, BATCH)
    np.testing.assert_allclose(scores, [np.tile(BY_L1, 3), np.tile(BY_L2, 3)], rtol=1e-6)
    assert len(calls) == 1
    scores = score_by("body.0=l1,body.1=l2,tail=l1", NET, GRAPH, BATCH)
    np.testing.assert_allclose(scores, np.concatenate([BY_L1, BY_L2, BY_L1]), rtol=1e-6)
    assert len(calls) == 2
    assert score_by("l2", NET, GRAPH, BATCH).shape == (6,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tail=l2", ["l1", "l1", "l2"]),
        ("body=l2", ["l2", "l2", "l1"]),
        ("body.*=l2,*=random", ["l2", "l2", "random"]),
        ("body.1=l2,*=random", ["random", "l2", "random"]),
        ("l2", None),
    ],
)
def test_the_first_pattern_that_fits_counts(text: str, expected: list[str] | None) -> None:
    fixed = fixed_criteria(text, GRAPH)
    assert fixed == ({} if expected is None else dict(zip(("body.0", "body.1", "tail"), expected, strict=True)))
    assert criteria_of(text, GRAPH, np.array([1, 1, 1])) == fixed


def test_a_pattern_that_no_group_has() -> None:
    with pytest.raises(UserError, match="unknown group in --criterion 'tale': did you mean 'tail'"):
        fixed_criteria("tale=l1", GRAPH)


def test_criteria_of_a_plan_go_by_their_numbers() -> None:
    found = criteria_of("l1,l2,taylor:order=2", GRAPH, np.array([1, 1, 1, 2, 0, 1]))
    assert found == {"body.0": "taylor:order=2", "body.1": "l1", "tail": "l2"}
    assert set(criteria_of("l1,l2", GRAPH, np.array([1, 1, 1])).values()) == {"l1"}
