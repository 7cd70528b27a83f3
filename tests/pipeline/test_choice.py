"""Which plans a search may end on, and how long they are tuned."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from toys import make_spec

from rlprune.agents.search.setup import Prepared
from rlprune.cost.budget import parse_budget
from rlprune.cost.projection import BudgetProjector
from rlprune.evaluation.sensitivity import Sensitivity
from rlprune.pipeline.choice import best_first, candidates, tuner_for


def tuner(epochs: int, images: int) -> Any:
    return SimpleNamespace(epochs=epochs, images=range(images))


@pytest.mark.parametrize(
    ("images", "place"),
    [
        (288_000, 1),  # the longer one sees 100 times 960 = a third of them
        (287_999, 0),
        (72_000, 0),
        (71_999, None),
    ],
)
def test_the_longest_that_takes_a_third_of_the_final_one(images: int, place: int | None) -> None:
    tuners = [tuner(1, 24_000), tuner(4, 24_000)]
    assert tuner_for(tuners, images) is (None if place is None else tuners[place])


def prepared(*starts: tuple[int, ...]) -> Prepared:
    """Of the toy's three groups of 8, whose second one may go without harm."""
    spec = make_spec()
    ratios = np.array([1, 0.5, 0.25])
    rises = np.array([[0.0, 1.0, 3.0], [0.0, 0.0, 0.0], [0.0, 1.0, 3.0]])
    curves = Sensitivity(ratios, rises)
    return Prepared([spec], [[np.array(start) for start in starts]], curves, "rule", [[]])


def test_every_plan_is_there_once_under_its_first_name() -> None:
    """With one group free of harm the additive model keeps the others whole: 24 + 16 b MACs, at most 76, so b = 3."""
    ready = prepared((8, 4, 4), (6, 6, 4))
    projector = ready.specs[0].projector
    found = candidates("ppo", np.array([7, 4, 5]), ready, projector)
    assert {name: tuple(plan) for name, plan in found.items()} == {
        "sensitivity": (8, 4, 4),
        "uniform": (6, 6, 4),
        "additive-dp": (8, 3, 8),
        "ppo": (7, 4, 5),
    }
    names = ["sensitivity", "uniform", "additive-dp"]
    assert list(candidates("ppo", np.array([6, 6, 4]), ready, projector)) == names
    assert list(candidates("ppo", np.array([8, 4, 4]), prepared((8, 4, 4)), projector)) == [names[0], names[2]]


def test_what_the_budget_no_longer_admits_is_projected_anew() -> None:
    ready = prepared((8, 4, 4), (6, 6, 4))
    tighter = BudgetProjector(ready.specs[0].projector.cost, parse_budget("macs=0.3"))
    assert not tighter.fits(np.array([[8, 4, 4]]))[0]
    found = candidates("ppo", np.array([4, 4, 2]), ready, tighter)
    assert tighter.fits(np.array(list(found.values()))).all()
    assert tuple(found["ppo"]) == (4, 4, 2)


def test_the_best_is_told_first() -> None:
    assert [row["plan"] for row in best_first({"a": 2.0, "b": 1.0, "c": 3.0})] == ["b", "a", "c"]
