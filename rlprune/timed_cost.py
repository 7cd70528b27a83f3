"""The cost of a network with its latency: from measured layers, and from networks that are measured whole."""

import hashlib
import json
from typing import Any

import numpy as np

from rlprune.budget import Budget, Lander
from rlprune.cells import LOW, Memory, measure_cells
from rlprune.isolated import run_isolated
from rlprune.latency import TimedCost, assemble, fit, plots, with_latency
from rlprune.layers import Layer
from rlprune.problem import Problem
from rlprune.progress import Progress
from rlprune.runtime import Runtime
from rlprune.timing import time_networks

SAMPLES = 5
"""Plans of the network that are measured whole, beside the dense one."""
SECONDS = 8.0
"""Time for measuring networks whole, building them not counted."""


def timed_cost(
    problem: Problem,
    layers: list[tuple[str, Layer]],
    runtime: Runtime,
    round_to: int,
    known: dict[str, Any],
    progress: Progress,
) -> tuple[TimedCost, dict[str, Any]]:
    """The cost of a network with its latency, and all the measurements that make it.

    Args:
        problem: the network; no images are needed.
        layers: its layers, from `find_layers`.
        runtime: how it is run.
        round_to: kept counts will be multiples of this.
        known: measurements of an earlier run, or empty.
        progress: told what is going on.
    """
    places = plots(problem.graph, layers, round_to)
    cells = list(dict.fromkeys(cell for place in places for cell in place.cells()))
    found = known.get("layers_ms")
    milliseconds = measure_cells(cells, runtime) if found is None else dict(zip(cells, found, strict=True))
    samples = _samples(problem, round_to)
    progress.stage("measuring networks")
    whole = known.get("networks_ms") or _whole(problem, samples, layers, runtime)
    # The dense network is aligned as no plan is: it is what latencies are relative to, and no part of the fit.
    latency = fit(assemble(problem.graph, places, milliseconds), problem.cost, samples, np.array(whole[1:]))
    facts = {"layers_ms": [milliseconds[cell] for cell in cells], "networks_ms": whole}
    facts |= {"samples": samples.tolist(), "weights": latency.weights.tolist()}
    return with_latency(problem.cost, latency, whole[0]), facts


def _samples(problem: Problem, round_to: int) -> np.ndarray:
    """(SAMPLES, groups) counts of plans from thin to nearly whole, none of them even."""
    rng, sizes = np.random.default_rng(0), problem.graph.sizes
    ratios = np.geomspace(0.2, 0.8, SAMPLES)[:, None] * np.exp(rng.normal(0, 0.3, (SAMPLES, len(sizes))))
    return Lander(problem.cost, Budget({}), round_to).quantise(np.minimum(ratios, 1) * sizes)


def _whole(problem: Problem, samples: np.ndarray, layers: list[tuple[str, Layer]], runtime: Runtime) -> list[float]:
    """Milliseconds of the dense network and of the samples; remembered by what is run."""
    what = json.dumps([problem.network, [layer.as_dict() for _, layer in layers], samples.tolist()], sort_keys=True)
    key, memory = f"network {hashlib.sha256(what.encode()).hexdigest()[:24]}", Memory(runtime)
    if key not in memory.known:
        times = measure_networks(problem.network, samples.tolist(), runtime)
        memory.add({key: np.quantile(times, LOW, axis=0)[:-1].tolist()})
    return memory.known[key]


def measure_networks(
    network: dict[str, Any], plans: list[list[int]], runtime: Runtime, seconds: float = SECONDS
) -> np.ndarray:
    """(rounds, plans + 2) milliseconds of the dense network, of plans of it, and of the dense one once more."""
    subjects = [{"network": network}, *({"network": network, "counts": counts} for counts in plans)]
    return np.array(
        run_isolated(
            time_networks, threads=runtime.threads, subjects=subjects, runtime=runtime.as_dict(), seconds=seconds
        )
    )
