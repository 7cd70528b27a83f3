"""Commands on a network of one's own with residual blocks, some of which are taken out."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from workshop import episodes, flags, kept, macs

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


@pytest.fixture(scope="module")
def found(home: Any) -> Any:
    """A search that may take out blocks, under a budget that is hard to meet with all of them."""
    folder = home.root / "searched"
    settings = home.settings | {"budget": 0.3, "decide": "channels,blocks", "evaluations": 45, "finetune_epochs": 1}
    return SimpleNamespace(folder=folder, settings=settings, result=rlprune.search(**settings, out=folder))


def test_a_search_measures_blocks_and_plans_without_them(found: Any) -> None:
    rows = episodes(found.folder)
    plans = np.array([[int(count) for count in row["counts"].split()] for row in rows])
    # Four groups: the stem, then one inner group in each of three blocks; each block is taken out alone, once.
    probes = plans[[row["stage"] == "sensitivity" for row in rows]]
    alone = probes[(probes == 0).any(axis=1)]
    assert alone.tolist() == [[8, 0, 8, 8], [8, 8, 0, 8], [8, 8, 8, 0]]
    searched = plans[[row["stage"] == "search" for row in rows]]
    assert (searched[:, 0] > 0).all()
    assert (searched == 0).any()
    assert (searched > 0).all(axis=1).any()
    assert len(rows) == 45
    assert found.result["macs_ratio"] <= 0.3
    assert found.result["pruned_macs"] == macs(rlprune.load(found.folder))
    assert "asks_block" in (found.folder / "reactions.csv").read_text()
    assert rlprune.search(**found.settings, out=found.folder) == found.result


def test_the_policy_is_replayed_with_its_decisions(found: Any, shop: Any, tmp_path: Path) -> None:
    policy = json.loads((found.folder / "policy" / "policy.json").read_text())
    assert policy["observation"]["names"][-4:-2] == ["asks_block", "block_rise"]
    assert [block["groups"] for block in policy["homes"][0]["blocks"]] == [[1], [2], [3]]
    result = rlprune.replay(source=found.folder, evaluations=6, out=tmp_path / "again", device="cpu")
    assert result["evaluations"] <= 6
    assert result["search_loss"] <= found.result["base_loss"] + 1e-9
    assert result["pruned_macs"] == macs(rlprune.load(tmp_path / "again"))
    # A network without blocks shows the policy that there are none.
    settings = {"model": shop.settings["model"], "checkpoint": shop.checkpoint, "device": "cpu"}
    elsewhere = rlprune.replay(source=found.folder, **settings, out=tmp_path / "elsewhere")
    assert all(row["kept"] > 0 for row in elsewhere["table"])


def test_an_environment_asks_for_blocks(home: Any) -> None:
    env = rlprune.make_env(**home.settings, budget=0.4, decide="channels,blocks", render_mode="ansi")
    env.reset()
    actions = [0.0, 0.9, 0.0, 0.0, 0.0, 0.0, 0.0]
    for number, action in enumerate(actions):
        _, _, finished, _, info = env.step(np.array([action]))
        assert finished == (number == len(actions) - 1)
    assert (info["counts"] == 0).tolist() == [False, True, False, False]
    assert "block out" in str(env.render())
    assert env.unwrapped.plan().blocks == {"blocks.0": "act"}  # type: ignore[attr-defined]


def test_a_network_without_blocks_goes_on_with_channels(shop: Any, run: Callable[..., Any], tmp_path: Path) -> None:
    settings = shop.search | {"evaluations": 16, "finetune_epochs": 0, "decide": "channels,blocks"}
    code, _, err = run("search", *flags(settings), "--out", tmp_path / "run")
    assert code == 0
    assert "--decide blocks: the network has no blocks to decide on" in " ".join(err.split())


@pytest.mark.parametrize(
    ("decide", "said"),
    [
        ("channels,block", "unknown decision 'block': did you mean 'blocks'?"),
        ("channels,blocks,blocks", "names blocks twice"),
    ],
)
def test_decisions_that_cannot_be(run: Callable[..., Any], decide: str, said: str) -> None:
    code, _, err = run("search", "--model", "resnet20", "--budget", "0.3", "--decide", decide)
    assert (code, said in " ".join(err.split())) == (2, True)


def test_runtime_pruning_decides_channels_alone(run: Callable[..., Any]) -> None:
    settings = ["--budget", "0.3", "--decide", "channels,blocks", "--mode", "runtime"]
    code, _, err = run("search", "--model", "resnet20", *settings)
    assert (code, "--decide channels,blocks is for --mode static" in " ".join(err.split())) == (2, True)


def test_agents_of_a_comparison_decide_on_blocks(home: Any, run: Callable[..., Any], tmp_path: Path) -> None:
    settings = home.settings | {"budget": 0.3, "decide": "channels,blocks", "evaluations": 30, "seeds": 1}
    result = rlprune.compare(**settings, methods="sensitivity,ppo", out=tmp_path / "compared")
    assert [row["method"] for row in sorted(result["methods"], key=lambda row: row["method"])] == ["ppo", "sensitivity"]
    counts = {row["counts"] for row in episodes(tmp_path / "compared")}
    assert {"8 0 8 8", "8 8 0 8", "8 8 8 0"} <= counts
    code, _, err = run("compare", *flags(settings), "--methods", "sensitivity", "--out", tmp_path / "none")
    assert (code, "--methods sensitivity has none: add ppo" in " ".join(err.split())) == (2, True)
    # Four curves of three points, the dense network, two base plans; three blocks alone, and a plan without some.
    few = settings | {"evaluations": 18}
    code, _, err = run("compare", *flags(few), "--methods", "ppo-frozen", "--out", tmp_path / "none")
    assert code == 2
    assert "too few for ppo-frozen" in " ".join(err.split())
    assert "need 19" in " ".join(err.split())
