"""The model card, read by the library that model hubs read it with."""

from typing import Any

import pytest
from huggingface_hub import ModelCard

from rlprune.artifacts.model_card import model_card
from rlprune.plans.plan import PruningPlan

FACTS: dict[str, Any] = {
    "dense_accuracy": 0.9, "oneshot_accuracy": 0.5, "finetuned_accuracy": 0.8875,
    "dense_macs": 2_000_000, "pruned_macs": 500_000, "dense_params": 1000, "pruned_params": 300,
}  # fmt: skip
NETWORK = {"model": "torchvision/resnet18", "args": {"width": 0.25}, "classes": 10, "image_size": 32}
SOURCE = {
    "budget": "macs=0.3", "criterion": "l1", "dense_weights": "b84dc8da34c21fbf",
    "data_settings": {"data": "folder:photos: of 'cats'", "seed": 3},
}  # fmt: skip
PLAN = PruningPlan({"a": (0,)}, {"a": 4}, NETWORK, SOURCE)


def test_what_a_hub_reads() -> None:
    card = ModelCard(model_card(PLAN, FACTS, "2026-01-02"))
    data = card.data.to_dict()
    assert (data["library_name"], data["pipeline_tag"]) == ("rlprune", "image-classification")
    assert "license" not in data
    assert "pruning" in data["tags"]
    (result,) = card.data.eval_results  # type: ignore[attr-defined]
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.8875)
    assert result.dataset_name == "folder:photos: of 'cats'"


def test_what_people_read() -> None:
    text = model_card(PLAN, FACTS, "2026-01-02")
    for line in (
        "# resnet18-pruned",
        "| MACs | 2.00 M | 500 k | 25.0 % |",
        "| parameters | 1.00 k | 300 | 30.0 % |",
        "| test accuracy | 90.00 % | 88.75 % | |",
        "| test accuracy before fine-tuning | | 50.00 % | |",
        "network = rlprune.from_pretrained(FOLDER)  # an ordinary nn.Module in eval mode",
        "- network: `torchvision/resnet18` with width=0.25",
        "- hash of the dense weights: `b84dc8da34c21fbf`",
        "- budget: `macs=0.3`",
    ):
        assert line in text.splitlines()
    assert "- command" not in text


@pytest.mark.parametrize("facts", [{}, {"dense_macs": 8, "pruned_macs": 4, "dense_params": 8, "pruned_params": 4}])
def test_what_is_not_known_is_left_out(facts: dict[str, Any]) -> None:
    text = model_card(PLAN, facts, "2026-01-02")
    data = ModelCard(text).data.to_dict()
    assert "model-index" not in data
    assert "metrics" not in data
    assert "accuracy" not in text
    assert ("| MACs |" in text) == bool(facts)
    assert model_card(PruningPlan({"a": (0,)}, {"a": 4}), {}, "2026-01-02").startswith("---\nlibrary_name: rlprune\n")
