"""What tracing and cutting cost, on one core, and what memory an evaluation takes.

Run by itself it measures one peak of memory, which takes a process of its own.
"""

import copy
import os
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import keep
from evaluation import CHUNK, ROUNDS, Case, Clock, forward, plan
from torch import Tensor, nn

from rlprune.evaluation.sliced import SliceRunner
from rlprune.graph.structure import Graph
from rlprune.graph.surgery import prune
from rlprune.methods.criteria.base import score_channels
from rlprune.plans.counts import top_mask
from rlprune.tracing.build import build_graph

HELD = (
    Case("resnet56", 32, 200, 500),
    Case("torchvision/resnet50", 224, 16, 32),
    Case("torchvision/resnet50", 224, 200, 250),
)
PLANS = (0.3, 0.6, 0.98)
"""MACs that are kept while the peak of memory is measured."""
CUT = {"resnet50": ROUNDS, "densenet201": 1}
"""Networks that are cut, and how often torch-pruning cuts them."""


def structure() -> dict[str, Any]:
    """Seconds of tracing and cutting, beside torch-pruning's, and memory of evaluating, beside the dense forward's."""
    torch.set_num_threads(1)
    memory = []
    for case in HELD:
        peaks = {side: peak_of_child(case, side) for side in ("forward", "evaluation")}
        images = case.calibration + case.search
        memory.append({"network": case.label, "pixels": case.pixels, "images": images, "mib": peaks})
        print(memory[-1], file=sys.stderr)
    return {"seconds": {name: cutting(name, theirs) for name, theirs in CUT.items()}, "memory": memory}


def cutting(name: str, theirs: int) -> dict[str, float]:
    """Seconds of tracing a network and of removing a 30 % plan from it; torch-pruning's as often as asked for."""
    from torch_pruning import DependencyGraph

    module, graph, images = Case(f"torchvision/{name}", 224, 1, 0).build()
    scores = score_channels("l1", module, graph, (images, torch.zeros(1)))
    kept = top_mask(graph, plan(graph, 0.3), scores)
    clock = Clock()
    for number in range(ROUNDS):
        clock("trace", build_graph, module, images)
        smaller = clock("prune", prune, module, graph, kept)
        if number < theirs:
            other = copy.deepcopy(module)
            dependencies = clock("their_trace", DependencyGraph().build_dependency, other, images)
            clock("their_prune", remove, other, dependencies, graph, kept)
            with torch.inference_mode():
                torch.testing.assert_close(other(images), smaller(images))
            clock("their_step", step, copy.deepcopy(module), images, 1 - float(kept.mean()))
    print(name, clock.medians(), file=sys.stderr)
    return clock.medians()


def remove(module: nn.Module, dependencies: Any, graph: Graph, kept: np.ndarray) -> None:
    """Remove the very channels of a plan with torch-pruning; every group here is produced by a convolution."""
    from torch_pruning import prune_conv_out_channels

    for group, stays in zip(graph.groups, graph.split(kept), strict=True):
        gone = np.flatnonzero(~stays).tolist()
        dependencies.get_pruning_group(module.get_submodule(group.name), prune_conv_out_channels, gone).prune()


def step(module: nn.Module, image: Tensor, ratio: float) -> None:
    """torch-pruning's ordinary way: it traces, ranks the channels of each layer, and removes so many of them."""
    from torch_pruning import importance, pruner

    head = list(module.modules())[-1]
    how = {"importance": importance.MagnitudeImportance(p=1), "ignored_layers": [head]}
    pruner.MagnitudePruner(module, image, pruning_ratio=ratio, **how).step()


def peak_of_child(case: Case, side: str) -> float:
    """MiB that a fresh process holds at its peak."""
    # Otherwise the C library keeps freed memory for itself, more or less of it from run to run.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}
    words = [sys.executable, __file__, side, *(str(value) for value in astuple(case)[:4])]
    return float(subprocess.run(words, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout)


def peak(case: Case, side: str) -> float:
    """MiB that this process has held at its peak after evaluating three plans or running the dense network."""
    torch.set_num_threads(1)
    module, graph, images = case.build()
    scores = score_channels("l1", module, graph, (images, torch.zeros(1)))
    plans = [top_mask(graph, plan(graph, ratio), scores) for ratio in PLANS]
    if side == "forward":
        forward(module, images, case.calibration)
    else:
        runner = SliceRunner(module, graph, images[: case.calibration], CHUNK)
        for kept in plans:
            runner.logits(kept, images[case.calibration :])
    return peak_memory()


def peak_memory() -> float:
    """MiB that this process has held at its peak."""
    # Unlike getrusage this does not know of the process that started this one.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def structure_table(figures: dict[str, Any]) -> str:
    """Cost of tracing and cutting, and memory."""
    rows = {
        "finding what is coupled": "trace",
        "torch-pruning, the same": "their_trace",
        "removing a 30 % plan": "prune",
        "torch-pruning, the same channels": "their_prune",
        "torch-pruning, `MagnitudePruner` as it comes: tracing, ranking and removing as many": "their_step",
    }
    seconds = figures["seconds"]
    lines = [
        f"| {words} | " + " | ".join(f"{seconds[name][key]:.2g} s" for name in seconds) + " |"
        for words, key in rows.items()
    ]
    head = [f"| 224 pixels, one core | {' | '.join(seconds)} |", "|---" * (1 + len(seconds)) + "|"]
    return "\n".join(["**Tracing and cutting**", "", *head, *lines, "", memory_table(figures["memory"])])


def memory_table(rows: list[dict[str, Any]]) -> str:
    """Peaks of memory."""
    plans = ", ".join(f"{100 * ratio:.0f}" for ratio in PLANS)
    lines = []
    for row in rows:
        ours, plain = row["mib"]["evaluation"], row["mib"]["forward"]
        cells = [row["network"], row["pixels"], row["images"], f"{plain:.0f} MiB", f"{ours:.0f} MiB"]
        lines.append("| " + " | ".join(map(str, [*cells, f"{100 * (ours / plain - 1):+.1f} %"])) + " |")
    head = ["| network | pixels | images | dense forward | evaluations | |", "|---|---|---|---|---|---|"]
    title = f"**Peak memory of a process that evaluates plans of {plans} % of the MACs, libraries included**"
    how = "Both sides with `MALLOC_MMAP_THRESHOLD_=131072`: what is freed is no longer held."
    return "\n".join([title, "", *head, *lines, "", how])


if __name__ == "__main__":
    if len(sys.argv) == 1:
        keep("structure", structure())
    else:
        side, model, *numbers = sys.argv[1:]
        print(peak(Case(model, *map(int, numbers)), side))
