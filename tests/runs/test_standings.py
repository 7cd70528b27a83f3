"""Means, spreads and the closing sentence, by hand."""

from dataclasses import replace
from typing import Any

import pytest

from rlprune.runs.comparison import Cell, standings, verdict

CELL = Cell("ppo", 0, 1.0, 0.5, 0.5, None, 28, 10.0, 2.0, 0.3, 0.4, "", "3 14 15")


def cells(**tests: list[float]) -> list[Cell]:
    """Cells of methods with these test accuracies; the loss is the lower the later a method is named."""
    names = list(tests)
    return [
        replace(
            CELL, method=name.replace("_", "-"), seed=seed, search_loss=10.0 - names.index(name), test_accuracy=value
        )
        for name, values in tests.items()
        for seed, value in enumerate(values)
    ]


def test_means_and_spreads() -> None:
    mine = [
        replace(CELL, search_loss=1.0, evaluations=28, seconds=10.0, own_seconds=2.0),
        replace(CELL, seed=1, search_loss=2.0, evaluations=28, seconds=30.0, own_seconds=2.0, remark="it fell asleep"),
        replace(CELL, seed=2, search_loss=6.0, evaluations=25, seconds=20.0, own_seconds=5.0),
    ]
    (record,) = standings(mine)
    assert (record["method"], record["seeds"]) == ("ppo", 3)
    assert record["search_loss"] == 3
    # Squared distances 4, 1 and 9 over two degrees of freedom.
    assert record["search_loss_sd"] == pytest.approx(7**0.5)
    assert (record["evaluations"], record["evaluations_sd"]) == (27, pytest.approx(3**0.5))
    assert record["own_share"] == pytest.approx(9 / 60)
    assert (record["test_accuracy"], record["test_accuracy_sd"]) == (0.5, 0)
    assert (record["tuned_accuracy"], record["tuned_accuracy_sd"]) == (None, None)
    assert record["remarks"] == ["ppo, seed 1: it fell asleep"]


def test_the_lowest_loss_stands_first_and_one_seed_has_no_spread() -> None:
    records = standings(cells(uniform=[0.3], ppo=[0.2], random=[0.4]))
    assert [record["method"] for record in records] == ["random", "ppo", "uniform"]
    assert all(record["search_loss_sd"] is None for record in records)


@pytest.mark.parametrize(
    ("tests", "sentence"),
    [
        # Means 41.2 and 40.0; sample deviations 0.6 and 0.8, of whose difference 1.0.
        (
            {"uniform": [0.3] * 3, "cma_es": [0.392, 0.4, 0.408], "ppo": [0.406, 0.412, 0.418]},
            "ppo beats the best rival (cma-es) by 1.2 ± 1.0 points of test accuracy",
        ),
        (
            {"cma_es": [0.392, 0.4, 0.408], "ppo": [0.4, 0.406, 0.412]},
            "ppo does not beat the best rival (cma-es): ahead by 0.6 ± 1.0 points of test accuracy, "
            "within the spread of the seeds",
        ),
        (
            {"cma_es": [0.392, 0.4, 0.408], "ppo": [0.388, 0.394, 0.4]},
            "ppo does not beat the best rival (cma-es): behind by 0.6 ± 1.0 points of test accuracy, "
            "within the spread of the seeds",
        ),
        (
            {"cma_es": [0.392, 0.4, 0.408], "ppo": [0.374, 0.38, 0.386]},
            "ppo does not beat the best rival (cma-es): it is behind by 2.0 ± 1.0 points of test accuracy",
        ),
        (
            {"uniform": [0.4], "ppo": [0.5]},
            "ppo is 10.0 points of test accuracy ahead of the best rival (uniform); one seed tells no spread",
        ),
        (
            {"uniform": [0.5], "ppo": [0.4]},
            "ppo is 10.0 points of test accuracy behind the best rival (uniform); one seed tells no spread",
        ),
        ({"uniform": [0.5], "ppo": [0.5]}, "ppo is level with the best rival (uniform); one seed tells no spread"),
        (
            {"uniform": [0.5, 0.5], "ppo": [0.5, 0.5]},
            "ppo does not beat the best rival (uniform): ahead by 0.0 ± 0.0 points of test accuracy, "
            "within the spread of the seeds",
        ),
        # The rival is the best on the test images, whatever its loss; the agent is the one with the lowest loss.
        (
            {"random": [0.45, 0.45], "cma_es": [0.4, 0.4], "sac": [0.9, 0.9], "ppo": [0.5, 0.5]},
            "ppo beats the best rival (random) by 5.0 ± 0.0 points of test accuracy",
        ),
        # Without agents, and with nothing else, the lowest loss stands against the rest.
        (
            {"uniform": [0.3, 0.3], "random": [0.4, 0.4]},
            "random beats the best rival (uniform) by 10.0 ± 0.0 points of test accuracy",
        ),
        (
            {"ddpg": [0.3, 0.3], "sac": [0.4, 0.4]},
            "sac beats the best rival (ddpg) by 10.0 ± 0.0 points of test accuracy",
        ),
        ({"ppo": [0.5, 0.6]}, ""),
    ],
)
def test_the_closing_sentence(tests: dict[str, list[float]], sentence: str) -> None:
    assert verdict(standings(cells(**tests))) == sentence


def test_in_the_grid_agents_are_agents_under_every_criterion() -> None:
    names = {"random@l1": 0.4, "sac:epochs=2@taylor:order=2": 0.5, "ppo@l1": 0.3, "uniform@taylor:order=2": 0.45}
    (one,) = cells(uniform=[0.5])
    found = [replace(one, method=name, test_accuracy=test, search_loss=1 - test) for name, test in names.items()]
    assert verdict(standings(found)) == (
        "sac:epochs=2@taylor:order=2 is 5.0 points of test accuracy ahead of the best rival (uniform@taylor:order=2); "
        "one seed tells no spread"
    )


def test_after_fine_tuning_the_tuned_accuracy_decides() -> None:
    tuned: dict[str, Any] = {"uniform": 0.8, "ppo": 0.9}
    both = [replace(cell, tuned_accuracy=tuned[cell.method]) for cell in cells(uniform=[0.6, 0.6], ppo=[0.5, 0.5])]
    expected = "ppo beats the best rival (uniform) by 10.0 ± 0.0 points of fine-tuned test accuracy"
    assert verdict(standings(both)) == expected
