from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from rlprune.models.registry import build_model
from rlprune.utils.device import _CPU_BFLOAT16_QUERIES

# Tensors as small as those of the tests are slower on several threads, and much slower on a busy machine.
torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests name is not remembered for the person who runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _float32() -> Iterator[None]:
    """Processors with instructions for bfloat16 would compute in it, three digits where the oracles have seven."""
    with pytest.MonkeyPatch.context() as patch:
        for query in _CPU_BFLOAT16_QUERIES:
            patch.setattr(torch.cpu, query, lambda: False, raising=False)
        yield


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """A test that draws without a seed of its own still draws the same every time."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def write_images() -> Callable[..., None]:
    """Fills a new folder with ``count`` images of noise, ``size`` pixels wide and high."""

    def write(
        folder: Path,
        count: int,
        *,
        size: tuple[int, int] = (8, 8),
        mode: str = "RGB",
        suffix: str = "png",
        seed: int = 0,
    ) -> None:
        folder.mkdir(parents=True)
        rng = np.random.default_rng(seed)
        for number in range(count):
            array = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(array).convert(mode).save(folder / f"{number:03}.{suffix}")

    return write


@pytest.fixture
def pets(tmp_path: Path, write_images: Callable[..., None]) -> Path:
    """Two classes, cat with 30 and dog with 10 training images of 8 x 8, and 4 test images each."""
    root = tmp_path / "pets"
    for seed, (part, name, count) in enumerate(
        [("train", "cat", 30), ("train", "dog", 10), ("test", "cat", 4), ("test", "dog", 4)]
    ):
        write_images(root / part / name, count, seed=seed)
    return root


class Mixed(nn.Module):
    """One of every coupling: a residual sum, a concatenation, a depthwise convolution over it, a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.body, self.body_norm = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.left, self.right = nn.Conv2d(6, 4, 3, padding=1), nn.Conv2d(6, 5, 1)
        self.depth, self.depth_norm = nn.Conv2d(9, 9, 3, padding=1, groups=9), nn.BatchNorm2d(9, affine=False)
        self.hidden, self.hidden_norm, self.last = nn.Linear(36, 7), nn.BatchNorm1d(7), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_norm(self.stem(x)).relu()
        x = (x + self.body_norm(self.body(x))).relu()
        x = torch.cat([self.left(x), self.right(x)], 1)
        x = nn.functional.adaptive_avg_pool2d(self.depth_norm(self.depth(x)).relu(), 2)
        return self.last(self.hidden_norm(self.hidden(x.flatten(1))).relu())


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mixed": Mixed,
    "resnet20": lambda: build_model("resnet20", classes=4, image_size=32, args={"width": 0.25}),
    "vgg11": lambda: build_model("vgg11", classes=4, image_size=32, args={"width": 0.1}),
    "mobilenetv2": lambda: build_model("mobilenetv2", classes=4, image_size=32, args={"width": 0.15}),
}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> nn.Module:
    """Networks for 32-pixel images in eval mode, each of whose channels does something of its own."""
    torch.manual_seed(0)
    module = NETWORKS[request.param]()
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                if tensor is not None:
                    nn.init.uniform_(tensor, 0.5, 1.5)
    return module.eval()
