"""What a budget of latency is worth: a search under it against searches under MACs that end at the same latency.

    python scripts/benchmarks/equal.py --model vgg16 --model-args width=0.25 --checkpoint FILE --data folder:PATH \\
        --budget 0.3 --out runs/equal

For every seed the network is searched under ``latency=B``, and under that budget of MACs whose plan is as fast when
both are timed in one process; that budget is found by bisection with the first seed. All plans are fine-tuned alike.
Writes docs/benchmarks/equal.json.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from common import command, keep

from rlprune.execution.isolated import run_isolated
from rlprune.latency.backends import Backend
from rlprune.latency.timing import summarise, time_networks

Record = dict[str, Any]
NEAR = 0.02
"""A plan under MACs is as fast as one under latency if it differs by no more."""
TRIES = 5
SECONDS = 20.0
"""Of timing two pruned networks side by side."""


def main() -> None:
    """Search, time, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "data", "checkpoint"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--model-args")
    parser.add_argument("--budget", type=float, default=0.5, help="of the latency")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--evaluations", type=int, default=300)
    parser.add_argument("--search-images", type=int, help="images that plans are scored on; few make noisy losses")
    parser.add_argument("--epochs", type=int, default=3, help="of fine-tuning")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-equal"), help="where the runs lie")
    given = parser.parse_args()
    backend = Backend("onnxruntime", 1, 1)
    rows: list[Record] = []
    for seed in range(given.seeds):
        fast = searched(given, backend, f"latency={given.budget}", seed)
        if not rows:
            macs = equal_macs(given, backend, fast)
        rows.append(side_by_side(backend, fast, searched(given, backend, f"macs={macs:.4f}", seed)))
    about = {"model": given.model, "model_args": given.model_args, "budget": given.budget, "macs": macs}
    about |= {"epochs": given.epochs, "evaluations": given.evaluations, "runtime": str(backend)}
    keep("equal", {**about, "rows": rows})


def searched(given: argparse.Namespace, backend: Backend, budget: str, seed: int) -> Record:
    """The result of a search, from its folder where it is finished."""
    words = ["--model", given.model, "--data", given.data, "--checkpoint", given.checkpoint, "--budget", budget]
    words += ["--model-args", given.model_args] if given.model_args else []
    words += ["--search-images", str(given.search_images)] if given.search_images else []
    words += ["--evaluations", str(given.evaluations), "--finetune-epochs", str(given.epochs), "--seed", str(seed)]
    words += ["--backend", backend.name, "--batch", str(backend.batch), "--threads", str(backend.threads)]
    # The stored figures are of plans that learned from the labels alone.
    words += ["--no-distill"]
    result, _ = command("search", *words, "--out", str(given.out / f"{budget}-seed{seed}"))
    return result


def equal_macs(given: argparse.Namespace, backend: Backend, fast: Record) -> float:
    """The budget of MACs whose plan takes as long as one under latency."""
    low, high, middle = 0.02, 1.0, float(fast["macs_ratio"])
    for _ in range(TRIES):
        slower = times(backend, fast, searched(given, backend, f"macs={middle:.4f}", 0))
        slower = slower[1] / slower[0]
        if abs(slower - 1) <= NEAR:
            break
        low, high = (low, middle) if slower > 1 else (middle, high)
        # Latency is nearly linear in the MACs near the plan; half-way only where that leads too far.
        guess = middle / slower
        middle = guess if low < guess < high else (low * high) ** 0.5
    return middle


def times(backend: Backend, *results: Record) -> list[float]:
    """Median milliseconds of pruned networks, timed in turn."""
    subjects = [{"folder": result["run"]} for result in results]
    facts = {"subjects": subjects, "backend": backend.as_dict(), "seconds": SECONDS}
    return [
        found.median for found in summarise(np.array(run_isolated(time_networks, threads=backend.threads, **facts)))
    ]


def side_by_side(backend: Backend, fast: Record, small: Record) -> Record:
    """Both plans of a seed: time, cost and accuracies on the test images."""
    row: Record = {}
    for name, result, milliseconds in zip(
        ("latency", "macs"), (fast, small), times(backend, fast, small), strict=False
    ):
        kept = ("search_loss", "oneshot_accuracy", "finetuned_accuracy", "macs_ratio", "params_ratio")
        row[name] = {"ms": milliseconds, **{key: result[key] for key in kept}}
    return row


def equal_table(figures: Record) -> str:
    """Means over the seeds, one line a kind of budget."""
    width = f" ({figures['model_args']})" if figures["model_args"] else ""
    title = f"`{figures['model']}`{width}: searches under a latency and under MACs whose plans are as fast"
    lines = [f"**{title}** (`python scripts/benchmarks/equal.py`; {figures['runtime']})", ""]
    lines += [
        "| budget | time | MACs | params | search loss | one-shot, test | fine-tuned, test |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, budget in (("latency", figures["budget"]), ("macs", figures["macs"])):
        rows = [row[name] for row in figures["rows"]]
        cells = [spread([row["ms"] for row in rows], 1, 3, " ms")]
        cells += [spread([row[key] for row in rows], 100, 1, " %") for key in ("macs_ratio", "params_ratio")]
        cells.append(spread([row["search_loss"] for row in rows], 1, 3, ""))
        cells += [spread([row[f"{key}_accuracy"] for row in rows], 100, 2, " %") for key in ("oneshot", "finetuned")]
        lines.append(f"| {name} = {100 * budget:.1f} % | {' | '.join(cells)} |")
    seeds = len(figures["rows"])
    lines += ["", f"Mean ± sd over {seeds} seeds, {figures['evaluations']} evaluations, {figures['epochs']} epochs."]
    return "\n".join(lines)


def spread(values: list[float], scale: float, digits: int, unit: str) -> str:
    """Mean and standard deviation."""
    deviation = f" ± {scale * np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{scale * np.mean(values):.{digits}f}{deviation}{unit}"


if __name__ == "__main__":
    main()
