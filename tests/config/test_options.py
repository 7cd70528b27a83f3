"""Options of trainings, and the words in which they are told apart."""

from pathlib import Path
from typing import Any

import pytest

from rlprune.config.commands import Compare, Replay, Search
from rlprune.config.options import AUGMENTATIONS, SCHEDULES, Settings
from rlprune.config.resolve import resolve
from rlprune.errors import UserError
from rlprune.tasks import base
from rlprune.training.config import WARM_UP


def test_words_are_those_of_the_code_that_they_are_for() -> None:
    assert AUGMENTATIONS == base.AUGMENTATIONS
    assert set(SCHEDULES) == set(WARM_UP)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"weight_decay": -1e-4}, "weight_decay is -0.0001: expected at least 0"),
        ({"label_smoothing": 1.1}, "label_smoothing is 1.1: expected at most 1"),
        ({"augment": "crop"}, "unknown augment 'crop': known: cutout, flip, none, standard"),
        ({"schedule": "lonk"}, "unknown schedule 'lonk': did you mean 'long'"),
        (
            {"schedule": "long", "finetune_epochs": 0},
            "--schedule long is for a fine-tuning, and --finetune-epochs is 0",
        ),
    ],
)
def test_what_a_training_cannot_be(setting: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        resolve(Search, {"model": "vgg16", "budget": 0.3, **setting})


@pytest.mark.parametrize(
    ("command", "needed"), [(Compare, {"model": "vgg16", "budget": 0.3}), (Replay, {"source": Path("run")})]
)
def test_a_long_fine_tuning_has_to_be_asked_for_where_there_is_none(
    command: type[Settings], needed: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match="say how many, such as 100"):
        resolve(command, needed | {"schedule": "long"})
    assert resolve(command, needed | {"schedule": "long", "finetune_epochs": 100})
