"""`rlprune bench`."""

from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from rlprune.artifacts.pruned import pruned_folder, read_plan
from rlprune.commands.base import command
from rlprune.config.commands import Bench
from rlprune.cost.exact import build_cost
from rlprune.errors import UserError
from rlprune.execution.isolated import run_isolated
from rlprune.latency.backends import Backend, device_for
from rlprune.latency.timing import noise, summarise, time_networks
from rlprune.models.registry import usual_shape
from rlprune.utils.arguments import parse_model_args
from rlprune.utils.device import machine, resolve_device
from rlprune.utils.files import FileFormat
from rlprune.utils.progress import Progress
from rlprune.utils.shapes import RGB, as_settings, parse_sides, shape_of
from rlprune.workloads.workload import open_network

BENCH_FORMAT = FileFormat("rlprune-bench")
SECONDS = 4.0
"""Time for every backend and batch; a slow network takes longer, for the fewest rounds."""


@command(Bench)
def bench(given: Bench, progress: Progress) -> dict[str, Any]:
    """Milliseconds of a forward pass, dense beside pruned, in a process that does nothing else.

    Both networks and the dense one once more as a control run in turn; medians and 95th percentiles of all rounds.
    Of a run or a pruned folder the result is kept there as `bench.json`.
    """
    network, counts, subjects = _subjects(given)
    backends = given.backends or ["torch", *(["onnxruntime"] if find_spec("onnxruntime") else [])]
    result = {"model": network["model"], "machine": machine(), **_costs(network, counts), "path": None}
    device, threads = resolve_device(given.device), given.threads or torch.get_num_threads()
    progress.stage("timing", len(backends) * len(given.batches))
    rows: list[dict[str, Any]] = []
    for name in backends:
        for batch in given.batches:
            where = device_for(name, device) if given.device == "auto" else str(device)
            rows.append(_row(Backend(name, batch, threads, where), subjects))
            progress.update(len(rows), backend=name, batch=str(batch))
    if all(row["refused"] for row in rows):
        raise UserError(rows[0]["refused"])
    result |= {"results": rows}
    if given.source is not None:
        path = given.source / "bench.json"
        result["path"] = str(path)
        BENCH_FORMAT.write(path, result)
    return result


def _subjects(given: Bench) -> tuple[dict[str, Any], list[int] | None, list[dict[str, Any]]]:
    """How to build the dense network, the kept counts if there is a plan, and what is timed, dense first."""
    if given.source is None:
        assert given.model is not None
        classes, pixels = usual_shape(given.model)
        network = {"model": given.model, "args": parse_model_args(given.model_args), "classes": classes}
        network |= as_settings((given.channels or RGB, *parse_sides(given.image_size or pixels)))
        return network, None, [{"network": network}]
    folder = pruned_folder(given.source)
    plan = read_plan(folder)
    network = dict(plan.network)
    return network, plan.counts().tolist(), [{"network": network}, {"folder": str(folder)}]


def _costs(network: dict[str, Any], counts: list[int] | None) -> dict[str, Any]:
    """MACs before and after; a plan's network is traced for them."""
    settings = network | {"model_args": network["args"]}
    _, _, graph = open_network(settings, network["classes"], shape_of(network), torch.device("cpu"))
    cost = build_cost(graph)
    pruned = None if counts is None else int(cost(np.array(counts))[0])
    ratio = None if pruned is None else pruned / cost.dense[0]
    return {"dense_macs": int(cost.dense[0]), "pruned_macs": pruned, "macs_ratio": ratio}


def _row(backend: Backend, subjects: list[dict[str, Any]]) -> dict[str, Any]:
    """One backend with one number of images: both latencies, the speed-up, and what to think of them."""
    row: dict[str, Any] = {**backend.as_dict(), "refused": None}
    try:
        times = run_isolated(
            time_networks, threads=backend.threads, subjects=subjects, backend=backend.as_dict(), seconds=SECONDS
        )
    except UserError as error:
        return row | {"refused": str(error)}
    found = summarise(np.array(times))
    row |= {"dense": found[0].as_dict(), "noise": noise(found[0], found[-1]), "rounds": len(times)}
    if len(subjects) > 1:
        row |= {"pruned": found[1].as_dict(), "speed_up": found[0].median / found[1].median}
    return row
