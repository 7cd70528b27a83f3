from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from workshop import NET, write_waves

from rlprune.config.commands import Search
from rlprune.data.dataset import load_data
from rlprune.errors import UserError
from rlprune.evaluation.finetuned import FineTunedEvaluator
from rlprune.methods.criteria.base import score_channels
from rlprune.models.checkpoint import save_weights
from rlprune.plans.plan import PruningPlan
from rlprune.training.loop import train
from rlprune.utils.progress import Progress
from rlprune.workloads.dense import finetuning_epochs, fit, recipe_of, train_dense
from rlprune.workloads.pruned import settings_of_plan
from rlprune.workloads.workload import Workload, open_workload


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    write_waves(tmp_path / "waves", train=20, test=5)
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.setattr("rlprune.workloads.dense.cache_folder", lambda: tmp_path / "cache")
    return {
        "model": f"{tmp_path / 'net.py'}:make",
        "model_args": "width=4",
        "data": f"folder:{tmp_path / 'waves'}",
        "search_images": 12,
        "calibration_images": 9,
        "device": "cpu",
    }


def opened(settings: dict[str, Any]) -> Workload:
    return open_workload(settings, Progress())


def test_splits_and_structure(settings: dict[str, Any]) -> None:
    workload = opened(settings)
    assert workload.network == {
        "model": settings["model"], "args": {"width": 4}, "classes": 3, "image_size": 16,
    }  # fmt: skip
    assert not workload.module.training
    assert [group.name for group in workload.graph.groups] == ["stem", "inner", "last"]
    for split, count in (("search", 12), ("calibration", 9)):
        images, labels = getattr(workload, split)()
        assert images.shape == (count, 3, 16, 16)
        assert sorted(labels.tolist()) == [0] * (count // 3) + [1] * (count // 3) + [2] * (count // 3)


def test_fresh_weights_follow_the_seed(settings: dict[str, Any]) -> None:
    first = opened(settings).weights()
    torch.rand(3)
    assert opened(settings).weights() == first != opened(settings | {"seed": 1}).weights()


def test_a_dense_network_is_trained_once(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(**more: Any) -> str:
        given = Search(**settings | more, budget=0.3, train_epochs=1)
        workload = opened(settings | more)
        train_dense(workload, given, Progress())
        return workload.weights()

    first = trained()
    different: list[dict[str, Any]] = [{"seed": 1}, {"lr": 0.02}, {"batch_size": 16 * 2}, {"model_args": "width=5"}]
    assert len({first, *(trained(**more) for more in different)}) == 1 + len(different)
    monkeypatch.setattr("rlprune.workloads.dense.train", None)
    assert trained() == first
    # A user's model file is known by its text, not by its name.
    file = Path(settings["model"].rpartition(":")[0])
    file.write_text(file.read_text() + "\n# changed\n")
    with pytest.raises(TypeError, match="not callable"):
        trained()


def test_what_tunings_are_scored_on_is_new_to_the_dense_network(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where plans are tuned; a search that does not tune, and the last fine-tuning, learn from all 48 images."""
    learned: list[set[int]] = []

    def spied(module: Any, images: Any, *args: Any, **rest: Any) -> Any:
        learned.append(set(images.rows.tolist()))
        return train(module, images, *args, **rest)

    monkeypatch.setattr("rlprune.workloads.dense.train", spied)
    workload, given = opened(settings), Search(**settings, budget=0.3, train_epochs=1, seed=3)
    scores = score_channels("l1", workload.module, workload.graph, workload.calibration(), 0)
    judged = [set(images.rows.tolist()) for images in FineTunedEvaluator(workload, scores, seed=3).judged]  # type: ignore[attr-defined]
    assert (len(judged[0]), len(judged[1])) == (12, 48 // 5)
    limited: list[dict[str, Any]] = [{"tunings": 4}, {"time": "10m"}, {}]
    networks, told = [], []
    for more in limited:
        told.append(train_dense(workload := opened(settings), replace(given, **more), Progress()))
        networks.append(workload.weights())
    assert told == [True, True, False]
    # The second one is the first one's, from the cache.
    assert networks[0] == networks[1] != networks[2]
    held, whole = learned
    assert (len(held), len(whole)) == (48 - 48 // 5, 48)
    assert held | judged[1] == whole
    fit(workload.module, workload, 1, replace(given, tunings=4), tmp_path / "state", Progress(), recovery=True)
    assert learned[2] == whole
    # Where a run was begun with the network of all images, it goes on with that.
    again = opened(settings)
    assert not train_dense(again, replace(given, tunings=4), Progress(), networks[2:])
    assert again.weights() == networks[2]
    # Nobody knows what a checkpoint has seen.
    save_weights(again.module, tmp_path / "dense.safetensors")
    assert not train_dense(again, replace(given, tunings=4, checkpoint=tmp_path / "dense.safetensors"), Progress())
    assert len(learned) == 3


def test_a_dense_network_is_trained_anew_where_a_file_beside_its_own_has_changed(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "body.py").write_text(NET)
    (tmp_path / "net.py").write_text("from body import make\n")

    def cached() -> set[Path]:
        train_dense(opened(settings), Search(**settings, budget=0.3, train_epochs=0), Progress())
        return set((tmp_path / "cache" / "dense").iterdir())

    first = cached()
    assert cached() == first
    (tmp_path / "body.py").write_text(NET + "# changed\n")
    assert first < cached()


def test_the_number_of_epochs_is_part_of_what_a_network_is(settings: dict[str, Any], tmp_path: Path) -> None:
    for epochs in (0, 1):
        train_dense(opened(settings), Search(**settings, budget=0.3, train_epochs=epochs), Progress())
    assert len(list((tmp_path / "cache" / "dense").iterdir())) == 2


def test_how_it_steps_is_part_of_what_a_dense_network_is(settings: dict[str, Any], tmp_path: Path) -> None:
    """And what goes without saying is none: networks in the cache of older versions stay known."""
    different: list[dict[str, Any]] = [
        {}, {"weight_decay": 1e-4}, {"label_smoothing": 0.1}, {"augment": "none"}, {"augment": "flip"},
    ]  # fmt: skip
    said: list[dict[str, Any]] = [{"weight_decay": 5e-4}, {"label_smoothing": 0.0}, {"augment": "standard"}]
    for number, more in enumerate([*different, *said], 1):
        train_dense(opened(settings), Search(**settings, **more, budget=0.3, train_epochs=0), Progress())
        assert len(list((tmp_path / "cache" / "dense").iterdir())) == min(number, len(different))


def test_what_is_left_open_suits_the_images(settings: dict[str, Any]) -> None:
    given, data = Search(**settings, budget=0.3, seed=3), opened(settings).data
    usual = {"lr": None, "batch_size": None, "label_smoothing": 0.0, "augment": "standard", "seed": 3}
    assert recipe_of(given, data) == usual | {"weight_decay": 5e-4}
    assert recipe_of(given, replace(data, shape=(3, 224, 224))) == usual | {"weight_decay": 1e-4}
    asked: dict[str, Any] = {
        "weight_decay": 0.0,
        "label_smoothing": 0.2,
        "augment": "cutout",
        "lr": 0.3,
        "batch_size": 8,
    }
    assert recipe_of(replace(given, **asked), data) == asked | {"seed": 3}


def test_a_long_schedule_has_its_own_number_of_epochs(settings: dict[str, Any]) -> None:
    """Of a folder of images 100, of others as many as their literature takes."""
    given, data = Search(**settings, budget=0.3), opened(settings).data
    long = replace(given, schedule="long")
    assert [finetuning_epochs(each, data, None) for each in (given, long)] == [10, 100]
    assert [finetuning_epochs(each, data, 7) for each in (given, long)] == [7, 7]
    digits = load_data("digits")
    assert [finetuning_epochs(each, digits, None) for each in (given, long)] == [3, 30]


@pytest.mark.parametrize("augment", ["flip", "standard", "cutout"])
def test_digits_are_not_mirrored_and_that_is_said_before_any_work(augment: str) -> None:
    with pytest.raises(UserError, match=f"--augment {augment}: the images of digits are centred .* leave it out"):
        opened({"model": "no such thing", "data": "digits", "augment": augment})


def test_calibration_images_are_read_once_and_the_dense_network_is_measured_once(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = opened(settings)
    for split in ("calibration", "search"):
        (images, labels), (again, _) = getattr(workload, split)(), getattr(workload, split)()
        assert images is again
        part = getattr(workload.data, split)
        assert torch.equal(images, part.take(torch.arange(len(part)))[0])
        assert torch.equal(labels, part.labels)
    with torch.inference_mode():
        images, labels = workload.data.test.take(torch.arange(len(workload.data.test)))
        expected = (workload.module(images).argmax(1) == labels).double().mean().item()
    assert workload.dense_accuracy() == pytest.approx(expected)
    monkeypatch.setattr("rlprune.workloads.workload.evaluate", None)
    assert workload.dense_accuracy() == pytest.approx(expected)


def test_a_plan_completes_the_settings() -> None:
    there = {"data": "cifar10", "search_images": 100, "seed": 2}
    network = {"model": "vgg16", "args": {"width": 0.25}, "classes": 10, "image_size": 32}
    plan = PruningPlan({}, {}, network, {"data_settings": there})
    assert settings_of_plan({"data": None, "seed": 0}, plan) == {
        "data": "cifar10", "search_images": 100, "seed": 2, "model": "vgg16", "model_args": {"width": 0.25},
    }  # fmt: skip
    # Explicit settings win, and other images have other splits.
    assert settings_of_plan({"data": None, "search_images": 7}, plan)["search_images"] == 7
    other = settings_of_plan({"data": "digits", "search_images": None}, plan)
    assert (other["data"], other["search_images"], other["image_size"]) == ("digits", None, 32)


def test_a_plan_that_knows_no_network() -> None:
    with pytest.raises(UserError, match="--model is missing: the plan does not say which network it is for"):
        settings_of_plan({"model": None}, PruningPlan({}, {}))
    assert settings_of_plan({"model": "vgg16"}, PruningPlan({}, {}))["model"] == "vgg16"


@pytest.mark.parametrize(
    ("output", "said"), [("(y,)", "tuple"), ("{'logits': y}", "dict"), ("y[None]", r"\(1, 1, 3\)")]
)
def test_an_output_that_is_no_logits(settings: dict[str, Any], tmp_path: Path, output: str, said: str) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.one, self.two = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)\n"
        "    def forward(self, x):\n"
        "        y = self.two(self.one(x).mean((2, 3)))\n"
        f"        return {output}\n"
        "def make(width):\n"
        "    return Net()\n"
    )
    with pytest.raises(UserError, match=f"one tensor .* returns {said}"):
        opened(settings)


BARE = """
from torch import nn


def make(width, outputs):
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, outputs)
    )
"""


class Notes(Progress):
    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)


@pytest.fixture
def bare(settings: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A network whose outputs are settled by an argument, for images of three classes."""
    (tmp_path / "net.py").write_text(BARE)
    return settings


def test_fewer_outputs_than_classes(bare: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^the network has 1 output and folder:.* 3 classes: .*--new-head$"):
        opened(bare | {"model_args": "width=4,outputs=1"})
    workload = opened(bare | {"model_args": "width=4,outputs=1", "new_head": True})
    assert workload.module.get_parameter("4.weight").shape == (3, 4)
    assert workload.network["new_head"] is True
    assert not workload.untrained


def test_more_outputs_than_classes(bare: dict[str, Any]) -> None:
    notes = Notes()
    open_workload(bare | {"model_args": "width=4,outputs=1000"}, notes)
    assert len(notes.told) == 1
    assert notes.told[0].startswith("the network has 1000 outputs and folder:")
    assert notes.told[0].endswith("the others are wrong for every image; --new-head gives it a fresh last layer")


def test_a_checkpoint_of_other_classes_and_a_fresh_last_layer(bare: dict[str, Any], tmp_path: Path) -> None:
    """The body is the checkpoint's, all of it is trained, and what comes out of that fits with its last layer."""
    there = opened(bare | {"model_args": "width=4,outputs=7", "seed": 3}).module
    save_weights(there, tmp_path / "seven.safetensors")
    given = bare | {"model_args": "width=4,outputs=7", "new_head": True, "checkpoint": tmp_path / "seven.safetensors"}
    notes = Notes()
    workload = open_workload(given, notes)
    assert notes.told == ["the last layer '4' is fresh, all else is that of the checkpoint"]
    assert workload.untrained
    assert torch.equal(workload.module.get_parameter("0.weight"), there.get_parameter("0.weight"))
    before = workload.weights()
    assert opened(given).weights() == before != opened(given | {"seed": 1}).weights()
    search = Search(**given, budget=0.5, train_epochs=1)
    train_dense(workload, search, Progress())
    assert (after := workload.weights()) != before
    save_weights(workload.module, tmp_path / "three.safetensors")
    again = opened(given | {"checkpoint": tmp_path / "three.safetensors"})
    assert (again.untrained, again.weights()) == (False, after)
    train_dense(again, Search(**given, budget=0.5), Progress())
    assert again.weights() == after


def test_few_search_images_are_told_where_plans_are_ranked_on_them(settings: dict[str, Any], tmp_path: Path) -> None:
    write_waves(tmp_path / "few", train=40, test=2)
    few = settings | {"data": f"folder:{tmp_path / 'few'}", "search_images": None, "evaluations": 300}
    notes = Notes()
    # Five of each of three classes.
    assert len(open_workload(few, notes).data.search) == 15
    assert notes.told == [
        "plans are ranked on 15 of 120 training images, where each is 7 points of accuracy: ask for more with "
        "--search-images 30, or add images"
    ]
    for quiet in ({"search_images": 6}, {"evaluations": None}, {"search_images": 30}):
        notes.told.clear()
        open_workload(few | quiet, notes)
        assert notes.told == []
