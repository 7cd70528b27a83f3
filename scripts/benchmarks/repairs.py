"""What repairs without training give back: the sensitivity rule's plan, one-shot, with and without each of them.

    python scripts/benchmarks/repairs.py --data folder:PATH --checkpoints FOLDER

FOLDER of the checkpoints holds vgg16.safetensors (width 0.25) and resnet20.safetensors. The curves of the rule are
measured with recalibrated batch norm, so that all repairs of a column are of one plan. Figures go to
docs/benchmarks/repairs.json.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import keep

from rlprune.agents.search.setup import make_evaluator
from rlprune.cost.budget import parse_budget
from rlprune.cost.projection import BudgetProjector
from rlprune.evaluation.sensitivity import measure
from rlprune.methods.allocators.base_plans import base_wishes
from rlprune.methods.recovery.base import Repairs
from rlprune.plans.counts import top_mask
from rlprune.tasks.classification import calibrated
from rlprune.training.loop import evaluate
from rlprune.utils.progress import Progress
from rlprune.workloads.workload import Workload, open_workload

NETWORKS = {"vgg16 ×0.25": ("vgg16", "width=0.25"), "resnet20": ("resnet20", "")}
BUDGETS = (0.5, 0.3)
NOTHING = "nothing"
REPAIRS = (
    NOTHING, "bn", "merge", "bias", "merge,bias", "reconstruct", "merge,bn", "reconstruct,bn", "merge,reconstruct,bn",
)  # fmt: skip
TIMES = 3


def main() -> None:
    """Measure and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder:PATH with train/ and test/")
    parser.add_argument("--checkpoints", type=Path, required=True)
    given = parser.parse_args()
    cells, dense = [], {}
    for label, (model, args) in NETWORKS.items():
        settings = {"model": model, "model_args": args or None, "data": given.data}
        workload = open_workload(settings | {"checkpoint": given.checkpoints / f"{model}.safetensors"}, Progress())
        dense[label] = workload.dense_accuracy()
        for budget, mask in plans(workload).items():
            cells += [{"network": label, "budget": budget, **repaired(workload, mask, text)} for text in REPAIRS]
    figures = {"calibration": len(workload.data.calibration), "dense": dense, "cells": cells}
    keep("repairs", figures)
    print(repairs_table(figures))


def plans(workload: Workload) -> dict[float, np.ndarray]:
    """Budget of MACs -> the channels that the sensitivity rule keeps."""
    evaluator = make_evaluator(workload, "l1", 0)
    projectors = {budget: BudgetProjector(workload.cost, parse_budget(budget)) for budget in BUDGETS}
    first = next(iter(projectors.values()))
    curves = measure(lambda asked: [found.loss for found in evaluator.evaluate(asked)], first, ())
    found = {}
    for budget, projector in projectors.items():
        counts = projector.project(base_wishes(curves, projector, None)[0][None])[0]
        found[budget] = top_mask(workload.graph, counts, evaluator.scores)
    return found


def repaired(workload: Workload, mask: np.ndarray, text: str) -> dict[str, Any]:
    """Loss on the search images, accuracy on the test images, and CPU seconds that cutting and repairing take."""
    repairs = Repairs("" if text == NOTHING else text, workload.module, workload.graph, workload.calibration()[0])
    seconds = []
    # What is looked for once in a dense network does not count.
    module = repairs.cut(mask)
    for _ in range(TIMES):
        # Of all cores together, which other work on the machine does not change.
        start = time.process_time()
        module = repairs.cut(mask)
        seconds.append(time.process_time() - start)
    images, labels = workload.search()
    with torch.inference_mode():
        loss = calibrated(torch.cat([module(chunk) for chunk in images.split(250)]), labels).loss
    accuracy = evaluate(module, workload.data.test, device=workload.device)[1]
    return {"repair": text, "search_loss": loss, "test_accuracy": accuracy, "seconds": float(np.median(seconds))}


def repairs_table(figures: dict[str, Any]) -> str:
    """Test accuracy after every repair, below it the search loss, and how long it takes."""
    cells, dense = figures["cells"], figures["dense"]
    columns = list(dict.fromkeys((cell["network"], cell["budget"]) for cell in cells))
    known = {(cell["repair"], cell["network"], cell["budget"]): cell for cell in cells}
    heads = [f"{network}, {100 * budget:.0f} % of the MACs" for network, budget in columns]
    lines = [
        f"**The sensitivity rule's plan without fine-tuning: test accuracy in %, below it the loss on the search "
        f"images and the CPU seconds to cut and repair, by {figures['calibration']} calibration images; the dense "
        f"networks have {' and '.join(f'{100 * accuracy:.1f} ({name})' for name, accuracy in dense.items())}** "
        "(`python scripts/benchmarks/repairs.py`)",
        "",
        "| repairs | " + " | ".join(heads) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for text in dict.fromkeys(cell["repair"] for cell in cells):
        shown = [_cell(known[text, network, budget]) for network, budget in columns]
        lines.append(f"| {text if text == NOTHING else f'`{text}`'} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _cell(cell: dict[str, Any]) -> str:
    return f"{100 * cell['test_accuracy']:.1f}<br>{cell['search_loss']:.2f}, {cell['seconds']:.2f} s"


if __name__ == "__main__":
    main()
