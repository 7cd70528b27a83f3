"""The cost of a network with its latency: from measured layers, and from networks that are measured whole."""

import hashlib
import json
from typing import Any

import numpy as np

from rlprune.cost.budget import Budget
from rlprune.cost.projection import BudgetProjector
from rlprune.evaluation.network import PreparedNetwork
from rlprune.execution.isolated import run_isolated
from rlprune.latency.backends import Backend
from rlprune.latency.layers import Layer
from rlprune.latency.lookup import LOW, LookupTable, measure_layers
from rlprune.latency.model import TimedCost, assemble, fit, layer_tables, with_latency
from rlprune.latency.timing import time_networks
from rlprune.utils.progress import Progress

SAMPLES = 5
"""Plans of the network that are measured whole, beside the dense one."""
SECONDS = 8.0
"""Time for measuring networks whole, building them not counted."""


def timed_cost(
    workload: PreparedNetwork,
    layers: list[tuple[str, Layer]],
    backend: Backend,
    round_to: int,
    known: dict[str, Any],
    progress: Progress,
) -> tuple[TimedCost, dict[str, Any]]:
    """The cost of a network with its latency, and all the measurements that make it.

    Args:
        workload: the network; no images are needed.
        layers: its layers, from `find_layers`.
        backend: how it is run.
        round_to: kept counts will be multiples of this.
        known: measurements of an earlier run, or empty.
        progress: told what is going on.
    """
    places = layer_tables(workload.graph, layers, round_to)
    shapes = list(dict.fromkeys(shape for place in places for shape in place.shapes()))
    found = known.get("layers_ms")
    milliseconds = measure_layers(shapes, backend) if found is None else dict(zip(shapes, found, strict=True))
    samples = _samples(workload, round_to)
    progress.stage("measuring networks")
    whole = known.get("networks_ms") or _whole(workload, samples, layers, backend)
    # The dense network is aligned as no plan is: it is what latencies are relative to, and no part of the fit.
    latency = fit(assemble(workload.graph, places, milliseconds), workload.cost, samples, np.array(whole[1:]))
    facts = {"layers_ms": [milliseconds[shape] for shape in shapes], "networks_ms": whole}
    facts |= {"samples": samples.tolist(), "weights": latency.weights.tolist()}
    return with_latency(workload.cost, latency, whole[0]), facts


def _samples(workload: PreparedNetwork, round_to: int) -> np.ndarray:
    """(SAMPLES, groups) counts of plans from thin to nearly whole, none of them even."""
    rng, sizes = np.random.default_rng(0), workload.graph.sizes
    ratios = np.geomspace(0.2, 0.8, SAMPLES)[:, None] * np.exp(rng.normal(0, 0.3, (SAMPLES, len(sizes))))
    return BudgetProjector(workload.cost, Budget({}), round_to).quantise(np.minimum(ratios, 1) * sizes)


def _whole(
    workload: PreparedNetwork, samples: np.ndarray, layers: list[tuple[str, Layer]], backend: Backend
) -> list[float]:
    """Milliseconds of the dense network and of the samples; remembered by what is run."""
    what = json.dumps([workload.network, [layer.as_dict() for _, layer in layers], samples.tolist()], sort_keys=True)
    key, memory = f"network {hashlib.sha256(what.encode()).hexdigest()[:24]}", LookupTable(backend)
    if key not in memory.known:
        times = measure_networks(workload.network, samples.tolist(), backend)
        memory.add({key: np.quantile(times, LOW, axis=0)[:-1].tolist()})
    return memory.known[key]


def measure_networks(
    network: dict[str, Any], plans: list[list[int]], backend: Backend, seconds: float = SECONDS
) -> np.ndarray:
    """(rounds, plans + 2) milliseconds of the dense network, of plans of it, and of the dense one once more."""
    subjects = [{"network": network}, *({"network": network, "counts": counts} for counts in plans)]
    return np.array(
        run_isolated(
            time_networks, threads=backend.threads, subjects=subjects, backend=backend.as_dict(), seconds=seconds
        )
    )
