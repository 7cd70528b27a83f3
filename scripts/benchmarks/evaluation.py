"""What one evaluation costs, on one core: `python scripts/benchmarks/evaluation.py`."""

import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from common import keep
from torch import Tensor, nn

from rlprune.cost.budget import parse_budget
from rlprune.cost.exact import build_cost
from rlprune.cost.projection import BudgetProjector
from rlprune.evaluation.evaluator import Evaluator
from rlprune.evaluation.sliced import SliceRunner
from rlprune.graph.structure import Graph
from rlprune.graph.surgery import prune
from rlprune.methods.allocators.uniform import uniform
from rlprune.methods.criteria.base import score_channels
from rlprune.models.registry import build_model
from rlprune.plans.counts import top_mask
from rlprune.tracing.build import build_graph

ROUNDS = 9
CHUNK = 250
"""Images that are run at once, the default of a search."""


@dataclass(frozen=True)
class Case:
    """A network, the side of its images in pixels, and how many there are to calibrate and to search with."""

    model: str
    pixels: int
    calibration: int
    search: int
    width: float | None = None

    @property
    def label(self) -> str:
        return self.model.rpartition("/")[2] + (f" ×{self.width:g}" if self.width else "")

    def build(self) -> tuple[nn.Module, Graph, Tensor]:
        """The dense network, its structure, and random images."""
        torch.manual_seed(0)
        args = {"width": self.width} if self.width else {}
        module = build_model(self.model, classes=10, image_size=self.pixels, args=args).eval()
        module = module.to(memory_format=torch.channels_last)
        images = torch.randn(self.calibration + self.search, 3, self.pixels, self.pixels)
        images = images.to(memory_format=torch.channels_last)
        return module, build_graph(module, images[:1]), images


EVALUATED = (
    Case("vgg16", 32, 35, 71),
    Case("vgg16", 32, 200, 500, width=0.25),
    Case("resnet56", 32, 200, 500),
    Case("torchvision/resnet50", 224, 16, 32),
    Case("torchvision/mobilenet_v2", 224, 16, 32),
)


class Clock:
    """Seconds of what is called, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def __call__(self, name: str, function: Callable[..., Any], *args: Any) -> Any:
        start = time.perf_counter()
        result = function(*args)
        self.seconds[name].append(time.perf_counter() - start)
        return result

    def medians(self) -> dict[str, float]:
        return {name: float(np.median(seconds)) for name, seconds in self.seconds.items()}


def plan(graph: Graph, ratio: float) -> np.ndarray:
    """Kept counts of the uniform plan for so much of the MACs."""
    return uniform(BudgetProjector(build_cost(graph), parse_budget(ratio)))


def forward(module: nn.Module, images: Tensor, calibration: int) -> None:
    """Run images in the parts in which an evaluation runs them."""
    with torch.inference_mode():
        for part in (images[:calibration], *images[calibration:].split(CHUNK)):
            module(part)


def evaluation() -> dict[str, Any]:
    """One evaluation of a 30 % plan (slices, recalibration, score) against the plain forward over the same images."""
    torch.set_num_threads(1)
    rows = []
    for case in EVALUATED:
        module, graph, images = case.build()
        labels = torch.randint(0, 10, (case.search,))
        counts = plan(graph, 0.3)
        scores = score_channels("l1", module, graph, (images, labels))
        runner = SliceRunner(module, graph, images[: case.calibration], CHUNK)
        evaluator = Evaluator(runner, scores, images[case.calibration :], labels)
        smaller = prune(module, graph, top_mask(graph, counts, scores)).to(memory_format=torch.channels_last)
        clock = Clock()
        for _round in range(ROUNDS):
            evaluator.seen.clear()
            clock("evaluation", evaluator, counts)
            clock("forward", forward, smaller, images, case.calibration)
        # Side by side, so that a noisy machine is noisy for both.
        ratio = np.median(np.divide(clock.seconds["evaluation"], clock.seconds["forward"]))
        row = {"network": case.label, "pixels": case.pixels, "images": len(images), "ratio": float(ratio)}
        rows.append(row | {"ms": 1e3 * clock.medians()["evaluation"]})
        print(rows[-1], file=sys.stderr)
    return {"rows": rows}


def evaluation_table(figures: dict[str, Any]) -> str:
    """Cost of one evaluation."""
    title = (
        "**One evaluation of a 30 % plan, relative to the plain forward of the pruned network over the same images, "
        "on one core**"
    )
    rows = [
        f"| {row['network']} | {row['pixels']} | {row['images']} | {row['ratio']:.2f} × | {row['ms']:.0f} ms |"
        for row in figures["rows"]
    ]
    return "\n".join([title, "", "| network | pixels | images | ratio | evaluation |", "|---|---|---|---|---|", *rows])


if __name__ == "__main__":
    keep("evaluation", evaluation())
