"""The main job, and one network on CIFAR-10 beside the rules.

    python scripts/benchmarks/headline.py digits                    # with nothing cached, and with the dense network
    python scripts/benchmarks/headline.py cifar --data folder:PATH  # three seeds against uniform and the rule

Both store their figures under docs/benchmarks/, as every benchmark does; `python scripts/benchmarks/tables.py` renders
all of them.
"""

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import command, keep, kept


def main() -> None:
    """Run one part and keep its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=tuple(PARTS))
    parser.add_argument("--data", help="CIFAR-10: cifar10, or folder:PATH with train/ and test/")
    parser.add_argument("--checkpoint", help="dense network for the CIFAR part; trained for 12 epochs otherwise")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--finetune-epochs", type=int, default=0, help="epochs of fine-tuning in the CIFAR part")
    parser.add_argument("--resume", action="store_true", help="keep the seeds that the CIFAR part has measured before")
    given = parser.parse_args()
    keep(given.part, PARTS[given.part](given))


def digits(_: argparse.Namespace) -> dict[str, Any]:
    """The sentence everybody should know, in an empty cache and again with the dense network there."""
    words = ["search", "--model", "vgg16", "--budget", "0.3"]
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / name for name in ("cold", "warm")]
        for place in places:
            place.mkdir()
        first, cold = command(*words, cache=Path(folder), cwd=places[0])
        warm = command(*words, cache=Path(folder), cwd=places[1])[1]
        macs = counted_ratio(places[0] / first["run"])
        # The run is finished: the same command shows its result again, as a person sees it.
        shown = subprocess.run(["rlprune", *words], cwd=places[0], stdout=subprocess.PIPE, check=True, text=True).stdout
    return {
        "cold_seconds": cold,
        "warm_seconds": warm,
        "macs_ratio_counted": macs,
        "shown": shown,
        **{key: first[key] for key in ("dense_accuracy", "oneshot_accuracy", "finetuned_accuracy", "params_ratio")},
    }


def counted_ratio(run: Path) -> float:
    """Kept fraction of the MACs, counted by torch's own counter on the saved network and on the dense one."""
    import torch

    import rlprune
    from rlprune.commands.eval import count
    from rlprune.models.registry import rebuild_model
    from rlprune.utils.shapes import shape_of

    network = json.loads((run / "plan.json").read_text())["network"]
    modules = rlprune.load(run), rebuild_model(network).eval()
    pruned, dense = (count(module, shape_of(network), torch.device("cpu"))[0] for module in modules)
    return pruned / dense


def cifar(given: argparse.Namespace) -> dict[str, Any]:
    """VGG-16 x0.25 at 30 % of the MACs: one-shot test accuracy of the found plan, the base plan and the uniform one."""
    if not given.data:
        sys.exit("bench.py: name the CIFAR-10 images with --data cifar10 or --data folder:PATH")
    known: dict[str, Any] = {"rows": [], "peak_gib": 0.0}
    if given.resume:
        known = kept("cifar")
    rows = known["rows"][: given.seeds]
    words = ["search", "--model", "vgg16", "--model-args", "width=0.25", "--budget", "0.3", "--data", given.data]
    words += ["--finetune-epochs", str(given.finetune_epochs), "--train-epochs", "12"]
    words += ["--checkpoint", given.checkpoint] if given.checkpoint else []
    for seed in range(len(rows), given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            result, _ = command(*words, "--seed", str(seed), "--out", f"{folder}/run")
            episodes = list(csv.DictReader((Path(folder) / "run" / "episodes.csv").open()))
            plans = [row for row in episodes if row["stage"] == "search"][:2]
            base, uniform = oneshot(Path(folder) / "run", [row["counts"] for row in plans])
        rows.append(
            {
                "seed": seed,
                "uniform": uniform,
                "sensitivity": base,
                "search": result["oneshot_accuracy"],
                "tuned": result["finetuned_accuracy"],
                "dense": result["dense_accuracy"],
                "search_seconds": float(episodes[-1]["seconds"]),
            }
        )
        print(rows[-1], file=sys.stderr)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2
    return {"rows": rows, "peak_gib": max(peak, known["peak_gib"]), "finetune_epochs": given.finetune_epochs}


def oneshot(run: Path, plans: list[str]) -> list[float]:
    """One-shot test accuracy of plans given by their kept counts, in the setting of a run."""
    from rlprune.config.commands import Search
    from rlprune.config.resolve import as_dict, resolve
    from rlprune.methods.criteria.base import score_channels
    from rlprune.pipeline.recover import recover
    from rlprune.plans.counts import text_to_key, top_mask
    from rlprune.utils.progress import Progress
    from rlprune.workloads.dense import train_dense
    from rlprune.workloads.workload import open_workload

    given = resolve(Search, {}, run / "config.yaml")
    workload = open_workload(as_dict(given), Progress())
    train_dense(workload, given, Progress())
    scores = score_channels(given.criterion, workload.module, workload.graph, workload.calibration(), given.seed)
    accuracies = []
    for plan in plans:
        mask = top_mask(workload.graph, np.array(text_to_key(plan)), scores)
        accuracies.append(recover(workload, mask, 0, given, run / "state", Progress()).oneshot)
    return accuracies


def digits_table(figures: dict[str, Any]) -> str:
    """The main job."""
    rows = [
        ("whole command, nothing cached", f"{figures['cold_seconds']:.0f} s"),
        ("whole command, dense network cached", f"{figures['warm_seconds']:.0f} s"),
        ("test accuracy, dense", f"{100 * figures['dense_accuracy']:.2f} %"),
        ("one-shot, before fine-tuning", f"{100 * figures['oneshot_accuracy']:.2f} %"),
        ("fine-tuned", f"{100 * figures['finetuned_accuracy']:.2f} %"),
        ("MACs kept, counted on the saved network", f"{100 * figures['macs_ratio_counted']:.3f} %"),
        ("parameters kept", f"{100 * figures['params_ratio']:.1f} %"),
    ]
    lines = [f"| {name} | {value} |" for name, value in rows]
    return "\n".join(["**`rlprune search --model vgg16 --budget 0.3`**", "", "| | |", "|---|---|", *lines])


def cifar_table(figures: dict[str, Any]) -> str:
    """CIFAR-10, one-shot."""
    head = "| seed | uniform | sensitivity rule | `ppo` | search, seconds |"
    rows = [
        f"| {row['seed']} | {100 * row['uniform']:.1f} | {100 * row['sensitivity']:.1f} "
        f"| **{100 * row['search']:.1f}** | {row['search_seconds']:.0f} |"
        for row in figures["rows"]
    ]
    columns = [[100 * row[key] for row in figures["rows"]] for key in ("uniform", "sensitivity", "search")]
    means = " | ".join(f"{np.mean(column):.1f} ± {np.std(column, ddof=1):.1f}" for column in columns)
    title = "**CIFAR-10, `vgg16` ×0.25, 30 % of the MACs, 300 evaluations on 500 images: one-shot test accuracy in %**"
    dense = (
        f"The dense network has {100 * figures['rows'][0]['dense']:.1f} %; peak memory {figures['peak_gib']:.2f} GiB."
    )
    return "\n".join([title, "", head, "|---|---|---|---|---|", *rows, f"| mean ± sd | {means} | |", "", dense])


PARTS = {"digits": digits, "cifar": cifar}

if __name__ == "__main__":
    main()
