"""Each criterion of a comparison ranks channels its own way, and remembers its own evaluations."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rivalry import make_workload

from rlprune.config.commands import Compare
from rlprune.pipeline.rankings import rankings
from rlprune.runs.folder import RunFolder
from rlprune.tasks.base import Evaluation

GIVEN = Compare(model="vgg16", budget=0.5)


@pytest.fixture
def workload(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("rlprune.agents.search.setup.Evaluator", lambda runner, scores, *images: Remembering(scores))
    return SimpleNamespace(**vars(make_workload()), runner=lambda tell: None, search=lambda: ())


class Remembering:
    def __init__(self, scores: np.ndarray) -> None:
        self.scores, self.seen = scores, dict[tuple[int, ...], Evaluation]()

    def __call__(self, counts: np.ndarray) -> Evaluation:
        # A loss that the scores have a say in.
        key = tuple(int(count) for count in counts)
        return self.seen.setdefault(key, Evaluation(float(self.scores[: key[0]].sum()), 0.5))


def test_without_a_grid_there_is_the_criterion_alone(workload: Any) -> None:
    (one,) = rankings(replace(GIVEN, criterion="l2"), workload, print)
    assert one.label("uniform") == "uniform"
    # Filters of a single weight, whose norms are that weight relative to the mean.
    norms = workload.module[0].weight.detach().abs().flatten().numpy()
    assert one.cache.evaluator.scores[:8] == pytest.approx(norms / norms.mean())


def test_evaluations_are_remembered_by_criterion(workload: Any, tmp_path: Path) -> None:
    given, counts = replace(GIVEN, criteria="l1,random"), np.array([3, 4, 5])
    losses = []
    for _ in range(2):
        run = RunFolder(tmp_path / "run", given)
        found = rankings(given, workload, print)
        assert [each.label("ppo:epochs=2") for each in found] == ["ppo:epochs=2@l1", "ppo:epochs=2@random"]
        assert [each.given for each in found] == [replace(GIVEN, criterion=name) for name in ("l1", "random")]
        for each in found:
            each.remember(run, workload)
        known = [dict(each.cache.evaluator.seen) for each in found]
        losses.append([each.cache(counts)[0].loss for each in found])
    assert losses[0] == losses[1]
    assert losses[0][0] != losses[0][1]
    assert known == [{(3, 4, 5): Evaluation(loss, 0.5)} for loss in losses[0]]
    logs = sorted(path.name for path in (tmp_path / "run").glob("episodes*"))
    assert logs == ["episodes-l1.csv", "episodes-random.csv"]


def test_scores_that_methods_ask_for_are_made_once_for_all(workload: Any) -> None:
    one, other = rankings(replace(GIVEN, criteria="l1,l2"), workload, print)
    one.cache.scored["snip"] = np.ones(24), 1.0
    assert other.cache.scored is one.cache.scored
    assert (other.cache.score("l1") == one.cache.evaluator.scores).all()
