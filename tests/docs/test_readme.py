"""What the README shows works as shown."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rlprune.models.checkpoint import save_weights
from rlprune.models.registry import build_model

README = Path(__file__).parents[2] / "README.md"


def test_the_example_of_a_network_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_images: Callable[..., None]
) -> None:
    from click.testing import CliRunner

    from rlprune.cli.main import main

    example = README.read_text(encoding="utf-8").split("<!-- example")[1].split("<!-- end of example -->")[0]
    code, commands = re.findall(r"```\w+\n(.*?)```", example, re.S)
    monkeypatch.chdir(tmp_path)
    Path("my_net.py").write_text(code)
    for seed, split in enumerate(("train", "test")):
        for shift, label in enumerate(("cat", "dog")):
            write_images(Path("photos") / split / label, 40, seed=2 * seed + shift)
    torch.manual_seed(0)
    network = build_model("my_net.py:make", classes=2, image_size=8, args={"width": 32})
    save_weights(network, "my.safetensors")
    short = ["--evaluations", "40", "--finetune-epochs", "1"]
    for line, more in zip(commands.strip().splitlines(), ([], short), strict=True):
        result: Any = CliRunner().invoke(main, [*shlex.split(line)[1:], *more])
        assert result.exit_code == 0, result.output
    shown = result.output
    assert "my_net.py:make on folder:photos: keep ≤ 40 % of the MACs" in shown
    assert all(name in shown for name in ("kernel", "right"))
