"""Times of forward passes that can be compared: warmed up, interleaved, with a control that says what noise does."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from rlprune.artifacts.pruned import open_folder
from rlprune.graph.surgery import prune
from rlprune.latency.backends import Backend, Run, make_run
from rlprune.models.registry import rebuild_model
from rlprune.plans.counts import top_mask
from rlprune.tracing.build import build_graph
from rlprune.tracing.selection import parse_choice
from rlprune.utils.shapes import Shape, example, shape_of

ROUNDS = (7, 2000)
"""The fewest and the most rounds, whatever time they take."""
QUICK = (0.5, (3, 20))
"""Seconds and rounds where only a rough number is wanted."""
CONTROL, TAIL = 0.05, 2.0
"""A machine is too noisy where the medians of the same network differ by more, or the p95 is so many medians."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a forward pass: the median of all rounds and their 95th percentile."""

    median: float
    p95: float

    def as_dict(self) -> dict[str, float]:
        """The same as JSON can hold it."""
        return asdict(self)


def interleave(runs: Sequence[Run], seconds: float, rounds: tuple[int, int] = ROUNDS) -> np.ndarray:
    """Time forward passes in turn, so that whatever the machine does meets all of them alike.

    Args:
        runs: what is timed; warmed up here.
        seconds: how long it may take in all.
        rounds: the fewest and the most rounds.

    Returns:
        (rounds, runs) milliseconds.
    """
    end = time.perf_counter() + seconds
    for run in runs:
        run()
        run()
    times: list[list[float]] = []
    while len(times) < rounds[0] or (len(times) < rounds[1] and time.perf_counter() < end):
        # Every other round backwards: nobody always runs in the wake of the same neighbour.
        order = range(len(runs))[:: 1 if len(times) % 2 else -1]
        row = [0.0] * len(runs)
        for place in order:
            start = time.perf_counter()
            runs[place]()
            row[place] = 1000 * (time.perf_counter() - start)
        times.append(row)
    return np.array(times)


def summarise(times: np.ndarray) -> list[Timing]:
    """(rounds, runs) milliseconds -> one summary a run."""
    return [Timing(float(np.median(column)), float(np.quantile(column, 0.95))) for column in times.T]


def noise(one: Timing, again: Timing) -> str:
    """What is wrong with a machine that times the same network twice like this, or nothing."""
    apart = abs(one.median / again.median - 1)
    tail = max(each.p95 / each.median for each in (one, again))
    if apart <= CONTROL and tail <= TAIL:
        return ""
    return f"the same network twice differs by {100 * apart:.0f} %, its p95 is {tail:.1f} times its median"


def quick_latency(dense: nn.Module, pruned: nn.Module, shape: Shape) -> dict[str, Any]:
    """Both latencies by torch for one image, within a second: for the last line of a command, not for decisions.

    Args:
        dense, pruned: in eval mode on the same device.
        shape: (C, H, W) of an image.
    """
    backend = Backend(device=str(next(dense.parameters()).device), threads=torch.get_num_threads())
    runs = [make_run(module, shape, backend) for module in (dense, pruned)]
    before, after = summarise(interleave(runs, QUICK[0], QUICK[1]))
    return {**backend.as_dict(), "dense_ms": before.median, "pruned_ms": after.median, "noise": ""}


def build(subject: dict[str, Any]) -> tuple[nn.Module, Shape]:
    """A network to be timed, and the shape (C, H, W) of its images.

    Args:
        subject: `folder`, a pruned folder or a run; or `network`, how to build it, and maybe the kept `counts` of
            its groups. Its weights are then fresh, which takes no other time.
    """
    if "folder" in subject:
        module, plan = open_folder(subject["folder"])
        return module, shape_of(plan.network)
    network = subject["network"]
    module, shape = rebuild_model(network).eval(), shape_of(network)
    if subject.get("counts") is None:
        return module, shape
    graph = build_graph(module, example(shape), parse_choice(network))
    mask = top_mask(graph, np.array(subject["counts"]), np.arange(graph.sizes.sum()))
    return prune(module, graph, mask).eval(), shape


def time_networks(subjects: list[dict[str, Any]], backend: dict[str, Any], seconds: float) -> list[list[float]]:
    """(rounds, subjects + 1) milliseconds of networks in turn; the first comes once more as the control.

    Args:
        subjects: as `build` takes them.
        backend: as `Backend.as_dict` has it.
        seconds: how long the timing may take.
    """
    there = Backend.from_dict(backend)
    torch.set_num_threads(there.threads)
    runs = [make_run(*build(subject), there) for subject in subjects]
    return interleave([*runs, runs[0]], seconds).tolist()
