from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor
from workshop import flags

import rlprune


def test_a_run_and_its_pruned_folder(run_json: Callable[..., Any], shop: Any, searched: Any) -> None:
    result = run_json("eval", searched.folder, "--device", "cpu")
    assert result["test_accuracy"] == searched.result["finetuned_accuracy"]
    assert result["macs"] == searched.result["pruned_macs"]
    assert result["params"] == searched.result["pruned_params"]
    assert result["macs_ratio"] == searched.result["macs_ratio"]
    inside = run_json("eval", searched.folder / "pruned", "--device", "cpu")
    assert inside | {"what": ""} == result | {"what": ""}


def test_a_checkpoint(run_json: Callable[..., Any], shop: Any, searched: Any) -> None:
    result = run_json("eval", *flags(shop.settings), "--checkpoint", shop.checkpoint)
    assert result["test_accuracy"] == searched.result["dense_accuracy"]
    assert (result["macs"], result["params"]) == (searched.result["dense_macs"], searched.result["dense_params"])
    assert result["macs_ratio"] is None


def test_the_accuracy_by_hand(shop: Any, searched: Any) -> None:
    """Every test image read, normalised and classified without any of our readers."""
    paths = sorted((shop.root / "waves" / "test").glob("*/*.png"))
    training = torch.stack([tensor(path) for path in sorted((shop.root / "waves" / "train").glob("*/*.png"))])
    mean, std = (getattr(training, name)((0, 2, 3), keepdim=True)[0] for name in ("mean", "std"))
    images = (torch.stack([tensor(path) for path in paths]) - mean) / std
    labels = torch.tensor(["abc".index(path.parent.name) for path in paths])
    with torch.no_grad():
        hits = rlprune.load(searched.folder)(images).argmax(1) == labels
    # A tie or two may fall the other way, for the mean is rounded to six digits.
    assert searched.result["finetuned_accuracy"] == pytest.approx(hits.double().mean().item(), abs=1.5 / len(paths))


def tensor(path: Any) -> torch.Tensor:
    return pil_to_tensor(Image.open(path)).double().float() / 255
