"""How well latencies are foretold, met, and how fast pruned networks really are, on ONNX Runtime.

    python scripts/benchmarks/latency.py
    python scripts/benchmarks/latency.py --networks resnet56 --plans 3 --seconds 5      # to see that it works

Writes docs/benchmarks/latency.json . Every comparison is made of medians of interleaved rounds
in one process that does nothing else.
"""

import argparse
import sys
from typing import Any, cast

import numpy as np
import torch
from common import keep

from rlprune.cost.budget import Budget, parse_budget
from rlprune.cost.exact import build_cost
from rlprune.cost.projection import BudgetProjector
from rlprune.latency.alignment import best_multiple
from rlprune.latency.backends import Backend
from rlprune.latency.cost import measure_networks, timed_cost
from rlprune.latency.layers import find_layers
from rlprune.latency.timing import noise, summarise
from rlprune.models.registry import usual_shape
from rlprune.pipeline.measured_budget import MeasuredBudget
from rlprune.utils.progress import Progress
from rlprune.utils.shapes import shape_of
from rlprune.workloads.workload import Workload, open_network

Record = dict[str, Any]
NETWORKS = ("vgg16", "resnet56", "torchvision/resnet18", "torchvision/mobilenet_v2")
BUDGET = "latency=0.5"
MACS = 0.3


def main() -> None:
    """Measure, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--plans", type=int, default=20, help="random plans of every network")
    parser.add_argument("--seconds", type=float, default=60.0, help="of timing for every comparison")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1, help="of the random plans")
    given = parser.parse_args()
    backend = Backend(given.backend, 1, given.threads)
    rows = [network_row(name, backend, given) for name in given.networks.split(",")]
    figures: Record = {"runtime": backend.as_dict(), "plans": given.plans, "rows": rows, "speed": speed(backend, given)}
    keep("latency", figures)


def open_dense(name: str) -> Workload:
    """A network with fresh weights; no images are read."""
    classes, pixels = usual_shape(name)
    device = torch.device("cpu")
    network, module, graph = open_network({"model": name}, classes, (3, pixels, pixels), device)
    return Workload(cast(Any, None), module, network, graph, build_cost(graph), device)


def network_row(name: str, backend: Backend, given: argparse.Namespace) -> Record:
    """The errors of what is foretold of random plans, and how near a budget is met."""
    workload, told = open_dense(name), Progress()
    layers = find_layers(workload.module, shape_of(workload.network))
    cost, _ = timed_cost(workload, layers, backend, 1, {}, told)
    rng, sizes = np.random.default_rng(given.seed), workload.graph.sizes
    ratios = np.exp(rng.uniform(np.log(0.15), 0, (given.plans, 1)) + rng.normal(0, 0.4, (given.plans, len(sizes))))
    plans = BudgetProjector(workload.cost, Budget({})).quantise(np.clip(ratios, 0.03, 1) * sizes)
    found = summarise(measure_networks(workload.network, plans.tolist(), backend, given.seconds))
    measured = np.array([latency.median for latency in found[1:-1]])
    foretold = cost(plans)[:, 2]
    budget = parse_budget(BUDGET)
    projector = BudgetProjector(cost, budget)
    measured_budget = MeasuredBudget([projector], backend, workload.network)
    counts = measured_budget.settle(projector.project(sizes[None].astype(float))[0], told)
    dense, pruned, _ = summarise(measure_networks(workload.network, [counts.tolist()], backend, given.seconds / 4))
    row = {
        "network": name,
        "dense_ms": found[0].median,
        "noise": noise(found[0], found[-1]),
        "measured_ms": measured.tolist(),
        "foretold_ms": foretold.tolist(),
        **errors(foretold, measured, found[0].median / cost.dense[2]),
        "budget": budget.limits["latency"],
        "settled": measured_budget.measured["pruned_ms"] / measured_budget.measured["dense_ms"],
        "measured_again": pruned.median / dense.median,
    }
    print({key: value for key, value in row.items() if not isinstance(value, list)}, file=sys.stderr)
    return row


def errors(foretold: np.ndarray, measured: np.ndarray, slower: float) -> Record:
    """Median relative errors: as it is, of the ratios to the dense network, and of what is left after one factor.

    A machine that is shared is slower at one time than at another. Ratios leave out as much of that as the dense
    network tells; one factor for all plans, which is how the final measurement corrects the model, leaves it all out.
    """
    factor = np.median(measured / foretold)
    apart = {"": foretold, "_of_ratio": slower * foretold, "_after_factor": factor * foretold}
    found = {f"median_error{name}": float(np.median(np.abs(each / measured - 1))) for name, each in apart.items()}
    return {**found, "factor": float(factor)}


def speed(backend: Backend, given: argparse.Namespace) -> Record:
    """Full vgg16 at 30 % of its MACs, one ratio for all groups, with and without rounding."""
    workload = open_dense("vgg16")
    multiple, told = best_multiple([layer for _, layer in find_layers(workload.module, (3, 32, 32))], backend)
    plans = {}
    for round_to in dict.fromkeys((1, 8, multiple)):
        projector = BudgetProjector(workload.cost, Budget({"macs": MACS}), round_to)
        plans[round_to] = projector.project(workload.graph.sizes[None].astype(float))[0]
    counts = [plan.tolist() for plan in plans.values()]
    dense, *pruned, again = summarise(measure_networks(workload.network, counts, backend, given.seconds))
    rows = []
    for (round_to, plan), latency in zip(plans.items(), pruned, strict=True):
        kept = float(workload.cost.ratios(plan)[0])
        faster = dense.median / latency.median
        row = {"round_to": round_to, "macs_ratio": kept, "dense_ms": dense.median, "pruned_ms": latency.median}
        rows.append(row | {"faster": faster, "of_ideal": faster * kept})
    return {"auto": multiple, "told": told, "noise": noise(dense, again), "rows": rows}


def latency_table(figures: Record) -> str:
    """Both tables."""
    lines = [
        f"**Latency on {Backend.from_dict(figures['runtime'])}: {figures['plans']} random plans, and a budget of half "
        "of it**",
        "",
        "| network | dense | median error | of ratios to dense | after one factor | budget | at the end | once more |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in figures["rows"]:
        wrong = [row[f"median_error{name}"] for name in ("", "_of_ratio", "_after_factor")]
        shares = (*wrong, row["budget"], row["settled"], row["measured_again"])
        cells = " | ".join(f"{100 * share:.1f} %" for share in shares)
        lines.append(f"| {row['network']} | {row['dense_ms']:.2f} ms | {cells} |")
    lines += [
        "",
        "Layers, plans and the final plan are timed minutes apart: see docs/latency.md on machines that are shared.",
    ]
    lines += ["", "**Full vgg16, 32 pixels, one keep ratio for all groups**", ""]
    lines += ["| `--round-to` | MACs | dense | pruned | faster | of the ideal |", "|---|---|---|---|---|---|"]
    for row in figures["speed"]["rows"]:
        times = f"{row['dense_ms']:.2f} ms | {row['pruned_ms']:.2f} ms | {row['faster']:.2f} ×"
        shares = f"{100 * row['macs_ratio']:.1f} % | {times} | {100 * row['of_ideal']:.0f} %"
        lines.append(f"| {row['round_to']} | {shares} |")
    noisy = [row["noise"] for row in (*figures["rows"], figures["speed"]) if row["noise"]]
    return "\n".join([*lines, "", f"{figures['speed']['told']}.", *(f"Too noisy to tell: {text}." for text in noisy)])


if __name__ == "__main__":
    main()
