"""What the tests of the commands work on, and how they look at the results."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import rlprune
from rlprune.utils.progress import Progress

NET = """
import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self, classes, width):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(width)
        self.inner = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False)
        self.inner_norm = nn.BatchNorm2d(2 * width)
        self.outer = nn.Conv2d(2 * width, 2 * width, 3, padding=1, bias=False)
        self.outer_norm = nn.BatchNorm2d(2 * width)
        self.last = nn.Conv2d(2 * width, 3 * width, 3, padding=1)
        self.head = nn.Linear(3 * width, classes)

    def forward(self, images):
        images = F.relu(self.stem_norm(self.stem(images)))
        images = F.relu(self.inner_norm(self.inner(images)))
        images = F.relu(torch.add(images, self.outer_norm(self.outer(images))))
        return self.head(F.relu(self.last(images)).mean((2, 3)))


def make(num_classes, width=16):
    return Net(num_classes, width)
"""


def write_waves(root: Path, *, train: int = 50, test: int = 20, classes: str = "abc", size: int = 16) -> None:
    """Images of a wave and noise; every class has a wave of its own."""
    rng, place = np.random.default_rng(0), np.arange(size)
    for part, count in (("train", train), ("test", test)):
        for number, name in enumerate(classes, start=1):
            (root / part / name).mkdir(parents=True)
            wave = 40 * np.add.outer(np.sin(place * number), np.cos(place * number))[..., None]
            for image in range(count):
                pixels = 128 + wave + rng.normal(0, 60, (size, size, 3))
                Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(root / part / name / f"{image:03}.png")


def flags(settings: dict[str, Any]) -> list[str]:
    """Settings as the command line takes them."""
    return [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]


class Interrupting(Progress):
    """Interrupts a stage after a number of steps."""

    def __init__(self, stage: str, after: int) -> None:
        self.where, self.after, self.now = stage, after, ""

    def stage(self, name: str, total: int | None = None, done: int = 0) -> None:
        self.now = name

    def update(self, done: int, **facts: str) -> None:
        if self.now == self.where and done >= self.after:
            raise KeyboardInterrupt


def macs(module: torch.nn.Module, size: int = 16) -> int:
    """Multiply-accumulates for one image, by torch's own counter."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(1, 3, size, size))
    return counter.get_total_flops() // 2


def episodes(folder: Path) -> list[dict[str, str]]:
    """The log of a run, without the times."""
    with (folder / "episodes.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def kept(folder: Path) -> dict[str, list[int]]:
    """Group -> channels that stay, from the plan in a folder."""
    return {name: group["kept"] for name, group in json.loads((folder / "plan.json").read_text())["groups"].items()}


def kept_counts(folder: Path) -> str:
    """How many stay in every group, as the log writes it."""
    return " ".join(str(len(indices)) for indices in kept(folder).values())


def same_weights(one: Path, other: Path) -> bool:
    """Whether the pruned networks of two folders are equal to the bit."""
    states = (rlprune.load(folder).state_dict() for folder in (one, other))
    return all(torch.equal(a, b) for a, b in zip(*(state.values() for state in states), strict=True))
