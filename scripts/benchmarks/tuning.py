"""What brief fine-tunings gain from learning side by side on a CPU: a part of scripts/benchmarks/headline.py."""

import copy
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from common import keep
from evaluation import Case, Clock, plan
from torch import nn

from rlprune.data.images import MemoryImages
from rlprune.graph.surgery import prune
from rlprune.methods.criteria.base import score_channels
from rlprune.plans.counts import top_mask
from rlprune.training.config import TrainingConfig
from rlprune.training.loop import recover_together, train
from rlprune.training.parallel import WORKERS

ROUNDS, STEPS, BATCH = 5, 10, 128
BUDGET = 0.15
TUNED = (
    Case("vgg16", 32, 1, 1, width=0.25),
    Case("resnet20", 32, 1, 1, width=0.5),
    Case("resnet20", 32, 1, 1),
    Case("mobilenetv2", 32, 1, 1, width=0.35),
    Case("vgg16", 32, 1, 1),
)
CPU = torch.device("cpu")


def tuning() -> dict[str, Any]:
    """Four networks of 15 % of the MACs, side by side and one after the other, each then with all threads."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (STEPS * BATCH,), generator=generator)
    pixels = torch.randint(256, (len(labels), 3, 32, 32), dtype=torch.uint8, generator=generator)
    images = MemoryImages(labels, pixels, augmentable=True)
    rows = []
    for case in TUNED:
        module, graph, shown = case.build()
        mask = top_mask(
            graph, plan(graph, BUDGET), score_channels("l1", module, graph, (shown, torch.zeros(2, dtype=int)))
        )
        members = [prune(module, graph, mask) for _ in range(WORKERS)]
        clock = Clock()
        for _round in range(ROUNDS):
            clock("together", recover_together, copy.deepcopy(members), images, batch_size=BATCH, device=CPU)
            clock("in turn", in_turn, copy.deepcopy(members), images)
        ratio = np.median(np.divide(clock.seconds["in turn"], clock.seconds["together"]))
        ms = 1e3 * clock.medians()["together"] / WORKERS / STEPS
        rows.append({"network": case.label, "ratio": float(ratio), "ms": ms})
        print(rows[-1], file=sys.stderr)
    return {"threads": torch.get_num_threads(), "rows": rows}


def in_turn(modules: Sequence[nn.Module], images: MemoryImages) -> None:
    """Let one after the other learn."""
    for module in modules:
        train(module, images, TrainingConfig(epochs=1, recovery=True, batch_size=BATCH), device=CPU)


def tuning_table(figures: dict[str, Any]) -> str:
    """How many times as fast four brief fine-tunings are."""
    title = (
        f"**Brief fine-tunings of four plans of {100 * BUDGET:g} % side by side, against one after the other with all "
        f"{figures['threads']} threads each; batches of {BATCH} images of 32 pixels**"
    )
    rows = [f"| {row['network']} | {row['ratio']:.2f} × as fast | {row['ms']:.0f} ms |" for row in figures["rows"]]
    return "\n".join([title, "", "| network | | a step of one plan |", "|---|---|---|", *rows])


if __name__ == "__main__":
    keep("tuning", tuning())
