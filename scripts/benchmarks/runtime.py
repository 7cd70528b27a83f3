"""Runtime pruning on one network: two agents at several mixes beside FBS and RNP; and how fast it skips.

    python scripts/benchmarks/runtime.py --model mcifarnet --model-args width=0.5 --checkpoint FILE --data folder:PATH

Everything lies in --out and is continued from there. Writes docs/benchmarks/runtime.json .
"""

import argparse
import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import command, keep

from rlprune.cost.exact import build_cost
from rlprune.gating.controller import KeepController
from rlprune.gating.gate import make_gates, possible_wires
from rlprune.gating.layout import make_layout
from rlprune.gating.network import GatedNetwork
from rlprune.gating.skipping import SkippingNetwork
from rlprune.latency.timing import interleave, summarise
from rlprune.models.registry import build_model
from rlprune.tracing.build import build_graph

Record = dict[str, Any]
COLUMNS = {
    "test_accuracy": ("test", 100, 2),
    "macs_ratio": ("MACs", 100, 1),
    "macs_p5": ("5 %", 100, 1),
    "macs_p95": ("95 %", 100, 1),
    "stored_ratio": ("stored", 100, 1),
    "stored_with_gates": ("with gates", 100, 1),
}
TIMED = (("vgg16", 32), ("vgg16", 64), ("vgg16", 224), ("mcifarnet", 32), ("resnet20", 32), ("mobilenetv2", 32))
"""Networks and pixels a side."""
SECONDS = 15.0
"""Of timing a network dense and skipping."""


def main() -> None:
    """Run every seed, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "data", "checkpoint"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--model-args")
    parser.add_argument("--budget", type=float, default=0.25, help="of the MACs, the mean over images")
    parser.add_argument("--mix", default="0,0.25,0.5,0.75,1")
    parser.add_argument("--controls", default="fbs,rnp")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--rollouts", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=6, help="of the last stage")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/bench-runtime"), help="where the runs lie")
    given = parser.parse_args()
    told = ("method", "dense_accuracy", "seconds", *COLUMNS)
    results = [searched(given, seed)["methods"] for seed in range(given.seeds)]
    runs = [[{key: row[key] for key in told} for row in rows] for rows in results]
    about = {name: getattr(given, name) for name in ("model", "model_args", "budget", "rounds", "rollouts", "epochs")}
    keep("runtime", {**about, "runs": runs, "times": [time_skipping(*each) for each in TIMED]})


def searched(given: argparse.Namespace, seed: int) -> Record:
    """The result of one seed, from its folder where it is finished."""
    words = ["--mode", "runtime", "--model", given.model, "--data", given.data, "--checkpoint", given.checkpoint]
    words += ["--model-args", given.model_args] if given.model_args else []
    words += ["--budget", given.budget, "--mix", given.mix, "--rounds", given.rounds, "--rollouts", given.rollouts]
    words += ["--controls", given.controls] if given.controls else []
    # The stored figures are of networks that learned from the labels alone.
    words += ["--no-distill", "--finetune-epochs", given.epochs, "--seed", seed, "--out", given.out / f"seed{seed}"]
    result, _ = command("search", *map(str, words))
    return result


def time_skipping(name: str, size: int) -> Record:
    """Median milliseconds for one image: dense in both memory formats, and with half of every gated layer."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    dense = build_model(name, classes=10, image_size=size).eval()
    graph = build_graph(dense, torch.zeros(1, 3, size, size))
    cost, network = build_cost(graph), copy.deepcopy(dense)
    scores = np.random.default_rng(0).random(sum(graph.sizes))
    wires = possible_wires(network, graph)
    gated = GatedNetwork(network, graph, wires, make_gates(network, wires, scores, True), 1.0)
    layout = make_layout(gated, cost)
    gated.runtime = KeepController(layout, torch.ones(len(gated.wires)), acts=True)
    gated.runtime.budget = float(np.interp(0.5, layout.ratios, layout.macs))
    skipping, image = SkippingNetwork(gated).eval(), torch.randn(1, 3, size, size)
    last = copy.deepcopy(dense).to(memory_format=torch.channels_last)
    image_last = image.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        runs = [lambda: dense(image), lambda: last(image_last), lambda: skipping(image)]
        times = [found.median for found in summarise(interleave(runs, SECONDS))]
    about = {"network": name, "pixels": size, "macs": gated.runtime.budget}
    return {**about, **dict(zip(("dense", "channels_last", "skipping"), times, strict=True))}


def runtime_table(figures: Record) -> str:
    """Means over the seeds, one line a method; then the times."""
    runs = figures["runs"]
    width = f" ({figures['model_args']})" if figures["model_args"] else ""
    title = f"Runtime pruning of `{figures['model']}`{width} to {100 * figures['budget']:g} % of the MACs"
    dense = f"{100 * runs[0][0]['dense_accuracy']:.2f} %"
    lines = [
        f"**{title}** (`python scripts/benchmarks/runtime.py`; the dense network has {dense})",
        "",
        "| method | " + " | ".join(title for title, _, _ in COLUMNS.values()) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for rows in zip(*runs, strict=True):
        cells = [spread([row[name] for row in rows], scale, digits) for name, (_, scale, digits) in COLUMNS.items()]
        lines.append(f"| {rows[0]['method']} | {' | '.join(cells)} |")
    rounds = f"{figures['rounds']} rounds of {figures['rollouts']} batches an agent and one epoch"
    told = f"In %, mean ± sd over {len(runs)} seeds; {rounds}, {figures['epochs']} epochs at the end."
    return "\n".join([*lines, "", told, "", *times_table(figures["times"])])


def times_table(times: list[Record]) -> list[str]:
    """How fast half of every gated layer is, one line a network."""
    title = "**Half of every layer, chosen for the image: one image, one thread, torch, predictors and agent included**"
    lines = [
        title,
        "",
        "| network | pixels | MACs | dense | dense, channels last | skipping | times faster |",
        "|---" * 7 + "|",
    ]
    for row in times:
        cells = [f"{row[key]:.1f} ms" for key in ("dense", "channels_last", "skipping")]
        faster = min(row["dense"], row["channels_last"]) / row["skipping"]
        lines.append(
            f"| `{row['network']}` | {row['pixels']} | {100 * row['macs']:.0f} % | {' | '.join(cells)} | {faster:.2f} |"
        )
    return lines


def spread(values: list[float], scale: float, digits: int) -> str:
    """Mean and standard deviation, where there is any."""
    deviation = scale * np.std(values, ddof=1) if len(values) > 1 else 0
    return f"{scale * np.mean(values):.{digits}f}" + (f" ± {deviation:.{digits}f}" if deviation > 1e-9 else "")


if __name__ == "__main__":
    main()
