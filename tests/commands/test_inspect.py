from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def test_the_groups_of_a_network(run_json: Callable[..., Any], shop: Any, searched: Any) -> None:
    result = run_json("inspect", "--model", shop.settings["model"], "--data", shop.settings["data"])
    # 16 x 16 positions in the first layer, 8 x 8 behind its stride.
    stem, inner, outer, last = 3 * 16 * 9 * 256, 16 * 32 * 9 * 64, 32 * 32 * 9 * 64, 32 * 48 * 9 * 64
    dense = stem + inner + outer + last + 48 * 3
    assert result["macs"] == dense == searched.result["dense_macs"]
    assert result["params"] == searched.result["dense_params"]
    assert [(group["group"], group["channels"]) for group in result["groups"]] == [
        ("stem", 16), ("inner", 32), ("last", 48),
    ]  # fmt: skip
    assert "outer" in result["groups"][1]["producers"]
    assert result["groups"][0]["macs_share"] == pytest.approx((stem + inner) * 15 / 16 / dense)
    assert result["groups"][2]["macs_share"] == pytest.approx((last + 48 * 3) * 47 / 48 / dense)
    smallest = 3 * 9 * 256 + 9 * 64 * 3 + 3
    assert result["smallest_macs"] == pytest.approx(smallest / dense)
    rounded = run_json("inspect", "--model", shop.settings["model"], "--data", shop.settings["data"], "--round-to", 16)
    assert rounded["smallest_macs"] > result["smallest_macs"]


def test_residual_blocks(run_json: Callable[..., Any]) -> None:
    result = run_json("inspect", "--model", "resnet20", "--image-size", 32)
    assert [block["block"] for block in result["blocks"]] == [
        "layer1.0", "layer1.1", "layer1.2", "layer2.1", "layer2.2", "layer3.1", "layer3.2",
    ]  # fmt: skip
    first = result["blocks"][0]
    assert (first["groups"], first["remains"]) == (["layer1.0.conv1"], "relu")
    # Two convolutions of 16 channels at 32 x 32 positions, and two norms.
    assert first["macs_share"] == pytest.approx(2 * 16 * 16 * 9 * 1024 / result["macs"])
    assert first["params_share"] == pytest.approx((2 * 16 * 16 * 9 + 2 * 2 * 16) / result["params"])
    kept = run_json("inspect", "--model", "resnet20", "--image-size", 32, "--exclude", "layer1.*.conv2")
    assert [block["block"] for block in kept["blocks"]] == ["layer2.1", "layer2.2", "layer3.1", "layer3.2"]


def test_what_is_shown(run: Callable[..., Any], shop: Any) -> None:
    code, out, _ = run("inspect", "--model", shop.settings["model"], "--data", shop.settings["data"])
    assert code == 0
    assert all(name in out for name in ("stem", "inner", "last"))


def test_without_images(run_json: Callable[..., Any]) -> None:
    """The sizes that torchvision's documentation gives for its networks: 25,557,032 parameters, 4.09 GMACs."""
    result = run_json("inspect", "--model", "torchvision/resnet50")
    assert (result["image_size"], result["params"]) == (224, 25_557_032)
    assert result["macs"] == pytest.approx(4.09e9, rel=1e-3)
    first = result["groups"][0]
    assert (first["group"], first["consumers"]) == ("conv1", ["layer1.0.conv1", "layer1.0.downsample.0"])
    tied = next(group for group in result["groups"] if group["group"] == "layer1.0.conv3")
    assert tied["ties"] == ["sum in layer1.0", "sum in layer1.1", "sum in layer1.2"]
    assert run_json("inspect", "--model", "resnet20")["image_size"] == 32


def test_traps(run_json: Callable[..., Any]) -> None:
    def traps(model: str, *more: object) -> dict[str, list[str]]:
        result = run_json("inspect", "--model", model, "--image-size", 64, *more)
        return {group["group"]: group["traps"] for group in result["groups"]}

    assert traps("torchvision/mobilenet_v2")["features.2.conv.0.0"] == [
        "has a depthwise convolution, whose MACs fall in proportion only, not with the square"
    ]
    grouped = traps("torchvision/resnext50_32x4d", "--round-to", 16)
    assert grouped["layer1.0.conv1"][0] == "cut in bundles of 4 outputs"
    assert grouped["conv1"] == ["rounds coarsely: only 4 numbers of channels are possible"]
    # 64 pixels are 2 x 2 positions behind five halvings, and the pooling before the classifier makes 7 x 7 of them.
    assert traps("torchvision/vgg11")["features.18"] == [
        "flattened: every channel is 49 inputs of a layer that reads it"
    ]
    whole = traps("resnet20", "--round-to", 16)
    assert whole["conv1"] == ["stays whole: it has no more channels than the smallest number allowed"]


SUMMED = """
from torch import nn

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.one, self.two, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3), nn.Linear(8, classes)

    def forward(self, x):
        y = self.one(x).relu()
        return self.last(y.mean((2, 3))) + self.two(y).mean((1, 2, 3))[:, None]

def net(num_classes):
    return Net(num_classes)
"""


def test_a_group_that_nobody_reads(run_json: Callable[..., Any], tmp_path: Path) -> None:
    """Its mean is taken over all of its channels."""
    (tmp_path / "mine.py").write_text(SUMMED)
    result = run_json("inspect", "--model", f"{tmp_path / 'mine.py'}:net", "--image-size", 16)
    assert {group["group"]: (group["consumers"], group["traps"][-1:]) for group in result["groups"]} == {
        "one": (["last", "two"], []),
        "two": ([], ["no layer reads it: only sums or means over all of its channels are used"]),
    }


def test_choosing_groups(run_json: Callable[..., Any]) -> None:
    result = run_json(
        "inspect", "--model", "torchvision/resnet18", "--include", "layer2", "--exclude", "layer2.0.conv2"
    )
    assert [group["group"] for group in result["groups"]] == ["layer2.0.conv1", "layer2.1.conv1"]
    assert result["refused"]["conv1"] == "it is not included"
    assert result["refused"]["layer2.1.conv2"] == "it is excluded by 'layer2.0.conv2'"
