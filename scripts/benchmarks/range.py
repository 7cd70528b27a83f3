"""One policy for every budget against searches of its own for each: CIFAR-10, vgg16 ×0.25, read at seven budgets.

    python scripts/benchmarks/range.py --data folder:PATH --checkpoint FILE

The policy learns from 700 evaluations over 0.2:0.8; CMA-ES gets 100 at each of the seven budgets. Most budgets lie
between those that the policy was trained on. What has been measured is not measured again.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from common import command, keep

Record = dict[str, Any]
BUDGETS = (0.2, 0.25, 0.3, 0.38, 0.48, 0.6, 0.75)
EVALUATIONS = 700


def main() -> None:
    """Search once, read seven times, and let CMA-ES search seven times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CIFAR-10: cifar10, or folder:PATH with train/ and test/")
    parser.add_argument("--checkpoint", required=True, help="the dense network")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/bench-range"), help="where the runs lie")
    given = parser.parse_args()
    keep("range", measured(given))


def measured(given: argparse.Namespace) -> Record:
    """Every budget's losses and one-shot accuracies on the test images."""
    seed, network = ["--seed", str(given.seed)], ["--model", "vgg16", "--model-args", "width=0.25"]
    words = [*network, "--data", given.data, "--checkpoint", given.checkpoint, *seed]
    run = given.out / "any"
    found, _ = command("search", *words, "--budget", "0.2:0.8", "--evaluations", str(EVALUATIONS), "--out", str(run))
    rows = []
    for budget in BUDGETS:
        landed = given.out / f"any-{budget}"
        if not (landed / "result.json").is_file():
            command("replay", str(run), "--budget", str(budget), "--evaluations", "4", "--out", str(landed))
        ours = json.loads((landed / "result.json").read_text())
        methods = ["--methods", "sensitivity,cma-es", "--seeds", "1", "--evaluations", str(EVALUATIONS // len(BUDGETS))]
        alone = str(given.out / f"alone-{budget}")
        theirs, _ = command("compare", *words, "--budget", str(budget), *methods, "--out", alone)
        known = {record["method"]: record for record in theirs["methods"]}
        rows.append(
            {
                "budget": budget,
                "loss": {
                    "policy": ours["policy_loss"],
                    "landed": ours["search_loss"],
                    **{name: known[name]["search_loss"] for name in known},
                },
                "accuracy": {
                    "landed": ours["oneshot_accuracy"],
                    **{name: known[name]["test_accuracy"] for name in known},
                },
                "evaluations": ours["evaluations"],
            }
        )
    return {"rows": rows, "evaluations": EVALUATIONS, "seconds": found["seconds"]}


def range_table(figures: Record) -> str:
    """One row a budget."""
    rows = figures["rows"]
    each = figures["evaluations"] // len(rows)
    title = (
        f"**One policy for 0.2:0.8 from {figures['evaluations']} evaluations, landed by `replay`, against CMA-ES with "
        f"{each} at every budget: CIFAR-10, `vgg16` ×0.25** (`python scripts/benchmarks/range.py`)"
    )
    head = "| MACs | rule | CMA-ES | policy alone | `replay` | rule, test % | CMA-ES, test % | `replay`, test % |"
    lines = [title, "", head, "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        losses = [row["loss"][name] for name in ("sensitivity", "cma-es", "policy", "landed")]
        accuracies = [100 * row["accuracy"][name] for name in ("sensitivity", "cma-es", "landed")]
        texts = [f"{loss:.3f}" for loss in losses] + [f"{accuracy:.1f}" for accuracy in accuracies]
        lines.append(f"| {100 * row['budget']:g} % | " + " | ".join(texts) + " |")
    means = [
        sum(row["loss"][name] for row in rows) / len(rows) for name in ("sensitivity", "cma-es", "policy", "landed")
    ]
    tests = [
        100 * sum(row["accuracy"][name] for row in rows) / len(rows) for name in ("sensitivity", "cma-es", "landed")
    ]
    texts = [f"{mean:.3f}" for mean in means] + [f"{mean:.1f}" for mean in tests]
    most = max(row["evaluations"] for row in rows)
    note = f"Losses on the search images. `replay` makes at most {most} evaluations and takes the best it measures."
    return "\n".join([*lines, "| mean | " + " | ".join(texts) + " |", "", note])


if __name__ == "__main__":
    main()
