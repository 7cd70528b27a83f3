"""Commands on a network of one's own with residual blocks, some of which are taken out."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from workshop import kept, macs

import rlprune
from rlprune.exports.standalone import _imported

RESIDUAL = """
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, width, act):
        super().__init__()
        self.one, self.norm = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.two, self.last = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.act = act

    def forward(self, x):
        return self.act(x + self.last(self.two(self.act(self.norm(self.one(x))))))


class Net(nn.Module):
    def __init__(self, classes, width):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(*(Block(width, nn.SiLU()) for _ in range(3)))
        self.head = nn.Linear(width, classes)

    def forward(self, images):
        return self.head(self.blocks(F.silu(self.norm(self.stem(images)))).mean((2, 3)))


def make(num_classes, width=8):
    return Net(num_classes, width)
"""


@pytest.fixture(scope="module")
def home(shop: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The settings of a dense network, with its checkpoint."""
    root = tmp_path_factory.mktemp("residual")
    (root / "net.py").write_text(RESIDUAL)
    settings = shop.settings | {"model": f"{root / 'net.py'}:make"}
    rlprune.train(**settings, epochs=4, out=root / "dense.safetensors")
    return SimpleNamespace(root=root, settings=settings | {"checkpoint": root / "dense.safetensors"})


@pytest.fixture(scope="module")
def cut(home: Any) -> Any:
    """A table in which somebody has written 0 for a block, and what prune makes of it."""
    table = home.root / "ratios.csv"
    table.write_text("group,keep_ratio\nstem,0.5\nblocks.0.one,1\nblocks.1.one,0\nblocks.2.one,0.25\n")
    known = {key: value for key, value in home.settings.items() if key not in ("search_images", "calibration_images")}
    result = rlprune.prune(**known, ratios=table, out=home.root / "pruned")
    return SimpleNamespace(folder=home.root / "pruned", result=result)


def test_a_table_with_a_zero_takes_out_a_block(home: Any, cut: Any) -> None:
    assert {row["group"]: row["kept"] for row in cut.result["table"]} == {
        "stem": 4, "blocks.0.one": 8, "blocks.1.one": 0, "blocks.2.one": 2,
    }  # fmt: skip
    module, dense = rlprune.load(cut.folder), load_file(home.settings["checkpoint"])
    blocks = module.get_submodule("blocks")
    assert isinstance(blocks, nn.Sequential)
    assert isinstance(blocks[1], nn.SiLU)
    stem, indices = module.get_submodule("stem"), kept(cut.folder)["stem"]
    assert torch.equal(stem.weight, dense["stem.weight"][indices])  # type: ignore[arg-type]
    assert cut.result["pruned_macs"] == macs(module) == 3 * 4 * 9 * 64 + 2 * 4 * 8 * 9 * 64 + 2 * 4 * 2 * 9 * 64 + 4 * 3
    assert cut.result["pruned_params"] == sum(parameter.numel() for parameter in module.parameters())
    assert "`blocks.1`" in (cut.folder / "README.md").read_text()


def test_it_is_saved_again_and_exported(cut: Any, run: Callable[..., Any], tmp_path: Path) -> None:
    module, images = rlprune.load(cut.folder), torch.randn(2, 3, 16, 16)
    rlprune.save_pretrained(module, tmp_path / "again")
    expected = module(images)
    assert torch.equal(rlprune.from_pretrained(tmp_path / "again")(images), expected)
    assert run("export", cut.folder, "--format", "python", "--out", tmp_path / "python").code == 0
    alone = _imported(tmp_path / "python" / "model.py").load()
    torch.testing.assert_close(alone(images), expected, rtol=1e-5, atol=1e-6)
    for format, name in (("torch-export", "net.pt2"), ("onnx", "net.onnx")):
        assert run("export", cut.folder, "--format", format, "--out", tmp_path / name).code == 0
    code, _, err = run("export", cut.folder, "--format", "torch-pruning")
    assert code == 2
    assert "takes out the residual block of 'blocks.1.one'" in err


def test_what_is_left_can_be_cut_again(home: Any, cut: Any, tmp_path: Path) -> None:
    known = {key: home.settings[key] for key in ("model", "checkpoint", "data", "device")}
    result = rlprune.prune(**known, plan=cut.folder / "plan.json", budget=0.2, out=tmp_path / "smaller")
    counts = {row["group"]: row["kept"] for row in result["table"]}
    assert counts["blocks.1.one"] == 0
    assert 0 < counts["blocks.2.one"] < counts["blocks.0.one"]
    assert 0.15 < result["macs_ratio"] <= 0.2


def test_a_zero_that_is_no_block(home: Any, run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "ratios.csv").write_text("group,keep_ratio\nstem,0\nblocks.0.one,1\nblocks.1.one,1\nblocks.2.one,1\n")
    settings = [f"--model={home.settings['model']}", f"--checkpoint={home.settings['checkpoint']}"]
    code, _, err = run("prune", *settings, "--data", home.settings["data"], "--ratios", tmp_path / "ratios.csv")
    assert code == 2
    assert "'stem' keeps no channel, and it belongs to no residual block that could be taken out" in " ".join(
        err.split()
    )
