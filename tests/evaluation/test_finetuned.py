"""A tuning is a fine-tuning of the pruned network, and is scored on images that it has not seen."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import rlprune.evaluation.finetuned as module
from rlprune.evaluation.finetuned import FineTunedEvaluator
from rlprune.graph.surgery import prune
from rlprune.methods.criteria.base import score_channels
from rlprune.plans.counts import top_mask
from rlprune.training.config import TrainingConfig
from rlprune.training.loop import train
from rlprune.utils.progress import Progress
from rlprune.workloads.workload import Workload, open_workload


@pytest.fixture(scope="module")
def workload() -> Workload:
    """An untrained network on the digits: 1,437 images to train on, 71 of them held out."""
    settings = {"model": "resnet20", "model_args": "width=0.25", "data": "digits", "device": "cpu"}
    return open_workload(settings, Progress())


@pytest.fixture(scope="module")
def scores(workload: Workload) -> np.ndarray:
    return score_channels("l1", workload.module, workload.graph, workload.calibration(), 0)


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEPS", 5)


def plans(workload: Workload) -> list[np.ndarray]:
    return [np.maximum(workload.graph.sizes * share // 4, 1) for share in (1, 2, 3)]


@pytest.mark.parametrize(("distill", "times"), [(False, 1), (True, 1), (False, 8)])
def test_a_tuning_is_a_fine_tuning_on_a_part_of_the_images(
    workload: Workload, scores: np.ndarray, distill: bool, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlprune.data.holdout.HELD", 100)
    tuner = FineTunedEvaluator(workload, scores, seed=3, batch_size=32, distill=distill, times=times)
    assert tuner.epochs == {1: 1, 8: 2}[times]
    (found,) = tuner([plans(workload)[1]])
    alone = prune(workload.module, workload.graph, top_mask(workload.graph, plans(workload)[1], scores))
    teacher = workload.module if distill else None
    config = TrainingConfig(epochs=tuner.epochs, seed=3, batch_size=32, recovery=True)
    train(alone, tuner.images, config, device=workload.device, teacher=teacher)
    batches = [images.take(torch.arange(len(images))) for images in tuner.judged]
    images, labels = torch.cat([pixels for pixels, _ in batches]), torch.cat([truth for _, truth in batches])
    with torch.inference_mode():
        logits = alone(images)
    assert found.loss == pytest.approx(cross_entropy(logits, labels).item(), rel=1e-4)
    assert found.accuracy == pytest.approx((logits.argmax(1) == labels).double().mean().item())


@pytest.mark.parametrize(("times", "epochs", "seen"), [(1, 1, 341), (2, 1, 682), (4, 1, 1274), (16, 5, 1091)])
def test_no_image_is_both_tuned_on_and_judged_on(
    workload: Workload, scores: np.ndarray, monkeypatch: pytest.MonkeyPatch, times: int, epochs: int, seen: int
) -> None:
    """Of 1,366 training images a quarter is seen in a brief tuning, up to all but the 92 held back in longer ones."""
    monkeypatch.setattr("rlprune.data.holdout.HELD", 92)
    tuner = FineTunedEvaluator(workload, scores, batch_size=32, times=times)
    rows = [set(images.rows.tolist()) for images in (tuner.images, *tuner.judged)]  # type: ignore[attr-defined]
    assert len(set.union(*rows)) == sum(map(len, rows))
    assert (len(rows[0]), len(rows[2]), tuner.epochs) == (seen, 92, epochs)
    assert tuner.length == f"{epochs * seen} images"
    assert rows[1] == set(workload.data.search.rows.tolist())  # type: ignore[attr-defined]
    assert not any(images is workload.data.test for images in tuner.judged)


def test_no_tuning_takes_longer_than_the_fine_tuning_it_stands_for(
    workload: Workload, scores: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So few images are all seen in a brief one, and four times in a longer one."""
    monkeypatch.setattr(module, "STEPS", 100)
    for epochs, expected in ((1, [1]), (3, [1]), (4, [1, 4])):
        tuners = FineTunedEvaluator.of_all_lengths(workload, scores, epochs, seed=3, distill=True)
        assert [tuner.epochs for tuner in tuners] == expected
    assert (tuners[1].config.seed, tuners[1].teacher) == (3, workload.module)


def test_few_images_are_seen_more_than_once_in_a_brief_tuning_but_the_longest_fits_into_the_whole_one(
    workload: Workload, scores: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 steps of 32 images are 2.9 epochs of 1,093 of them: that much where a fourfold one still fits, or as much as
    then fits, or one epoch."""
    monkeypatch.setattr(module, "STEPS", 100)
    for whole, expected in {12: [(3, 1066), (12, 1066)], 6: [(2, 819), (6, 1092)], 2: [(1, 1093)]}.items():
        tuners = FineTunedEvaluator.of_all_lengths(workload, scores, whole, batch_size=32)
        assert [(tuner.epochs, len(tuner.images)) for tuner in tuners] == expected
    # Left to itself a step takes 27 of them.
    (usual, _) = FineTunedEvaluator.of_all_lengths(workload, scores, 12)
    assert (usual.epochs, len(usual.images)) == (3, 900)


def test_of_many_images_a_tuning_sees_no_more_than_so_many_steps_take(
    workload: Workload, scores: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter of 1,366 images would be 10 steps of 32: 7 are 224 images, and four times that in a longer one."""
    monkeypatch.setattr("rlprune.data.holdout.HELD", 92)
    monkeypatch.setattr(module, "MOST", 7)
    tuners = FineTunedEvaluator.of_all_lengths(workload, scores, 4, batch_size=32)
    assert [(tuner.epochs, len(tuner.images)) for tuner in tuners] == [(1, 7 * 32), (1, 4 * 7 * 32)]


def test_of_few_images_a_fifth_is_held_back(
    workload: Workload, scores: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 steps would take more than there are: all others are seen in a brief tuning."""
    monkeypatch.setattr(module, "STEPS", 100)
    tuner, train = FineTunedEvaluator(workload, scores), len(workload.data.train)
    assert (len(tuner.images), len(tuner.judged[1])) == (train - train // 5, train // 5)


def test_company_makes_no_difference_and_nothing_is_tuned_twice(
    workload: Workload, scores: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WORKERS", 2)
    first, second, third = plans(workload)
    told: list[Any] = []
    together = FineTunedEvaluator(workload, scores, on_new=lambda counts, evaluation: told.append(tuple(counts)))
    found = together([first, second, first, third])
    assert found[0] == found[2]
    assert told == [tuple(first), tuple(second), tuple(third)]
    assert together([third, first]) == [found[3], found[0]]
    assert len(told) == 3
    assert FineTunedEvaluator(workload, scores)([third]) == [found[3]]


def test_a_network_that_diverges_is_worth_chance(workload: Workload, scores: np.ndarray) -> None:
    (found,) = FineTunedEvaluator(workload, scores, lr=1e30)([plans(workload)[0]])
    assert found.loss == pytest.approx(np.log(10))
