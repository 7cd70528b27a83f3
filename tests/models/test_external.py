from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torchvision import models

from rlprune.errors import UserError
from rlprune.models.external import without_weights
from rlprune.models.registry import build_model, rebuild_model


def test_weights_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", gone)
    args = {"weights": "IMAGENET1K_V1"}
    with pytest.raises(
        UserError, match=r"^the weights of torchvision/resnet18 cannot be downloaded: .*not known.*--ch"
    ):
        build_model("torchvision/resnet18", classes=1000, image_size=64, args=args)
    with pytest.raises(UserError, match="--new-head takes the weights but for the last layer"):
        build_model("torchvision/resnet18", classes=3, image_size=64, args=args)


def test_the_body_of_pretrained_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a fresh last layer, all else is what torchvision would have loaded."""
    torch.manual_seed(1)
    there = models.resnet18().state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: there)
    network: dict[str, Any] = {"model": "torchvision/resnet18", "args": {"weights": "IMAGENET1K_V1"}, "classes": 3}
    network |= {"image_size": 64, "new_head": True}
    found = rebuild_model(network).state_dict()
    assert found["fc.weight"].shape == (3, 512)
    assert all(torch.equal(found[key], there[key]) for key in there if not key.startswith("fc."))
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", None)
    bare = rebuild_model(network, architecture=True).state_dict()
    assert {key: tensor.shape for key, tensor in bare.items()} == {key: tensor.shape for key, tensor in found.items()}


@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "resnet18"])
def test_what_weights_change_besides(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Some networks of torchvision compute something else once they have been given weights."""
    there = models.get_model(name, aux_logits=True, init_weights=False) if name != "resnet18" else models.resnet18()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: there.state_dict())
    weights = models.get_model(name, weights="DEFAULT").eval()
    bare = build_model(f"torchvision/{name}", classes=1000, image_size=96, args=without_weights(
        f"torchvision/{name}", {"weights": "DEFAULT"}
    )).eval()  # fmt: skip
    bare.load_state_dict(weights.state_dict())
    images = torch.randn(1, 3, 96, 96)
    assert torch.equal(bare(images), weights(images))


def test_other_arguments_stay() -> None:
    assert without_weights("timm/resnet18", {"pretrained": True, "drop_rate": 0.1}) == {"drop_rate": 0.1}
    assert without_weights("net.py:make", {"weights": 3}) == {"weights": 3}
