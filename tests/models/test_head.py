"""Fresh last layers, against networks whose last layer is known."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rlprune.errors import UserError
from rlprune.models.head import find_head, give_head
from rlprune.models.registry import build_model

SHAPE = (3, 64, 64)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("torchvision/resnet18", "fc"),
        ("torchvision/squeezenet1_1", "classifier.1"),
        ("torchvision/mobilenet_v3_small", "classifier.3"),
        ("torchvision/densenet121", "classifier"),
        ("timm/vit_tiny_patch16_224", "head"),
        ("timm/mobilenetv4_conv_small_050", "classifier"),
        ("resnet20", "fc"),
    ],
)
def test_the_last_layer_alone_is_fresh(name: str, head: str) -> None:
    module = build_model(name, classes=7, image_size=64, args={"img_size": 64} if "vit" in name else {})
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    assert find_head(module, SHAPE) == head
    give_head(module, 7, SHAPE)
    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())
    torch.manual_seed(3)
    give_head(module, 3, SHAPE)
    after = module.state_dict()
    assert {key for key in after if after[key].shape != before[key].shape} == {f"{head}.weight", f"{head}.bias"}
    assert all(torch.equal(after[key], before[key]) for key in after if not key.startswith(f"{head}."))
    assert module.training
    assert module.eval()(torch.randn(2, *SHAPE)).shape == (2, 3)
    # As torch itself draws it from the same seed.
    old = module.get_submodule(head)
    torch.manual_seed(3)
    drawn = nn.Linear(old.in_features, 3) if isinstance(old, nn.Linear) else nn.Conv2d(old.in_channels, 3, 1)
    assert torch.equal(after[f"{head}.weight"], drawn.weight)


class Fixed(nn.Module):
    """Its outputs are written into the code."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3), nn.Linear(4, 6)

    def forward(self, images: Tensor) -> Tensor:
        return self.two(self.one(images).mean((2, 3))).reshape(-1, 2, 3).flatten(1)


class Bare(nn.Module):
    """Its outputs are those of no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.one(images).mean((2, 3))


def test_networks_without_such_a_layer() -> None:
    with pytest.raises(UserError, match=r"--new-head cannot make 'two' anew: with 5 outputs there"):
        give_head(Fixed(), 5, SHAPE)
    with pytest.raises(UserError, match="this network has no last layer that could be made anew"):
        give_head(Bare(), 5, SHAPE)
    with pytest.raises(UserError, match=r"does not run on an image of shape \(4, 64, 64\)"):
        find_head(Fixed(), (4, 64, 64))


def test_a_factory_that_takes_no_classes(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef make():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1000))\n"
    )
    model = build_model(f"{tmp_path / 'net.py'}:make", classes=3, image_size=32, new_head=True)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
