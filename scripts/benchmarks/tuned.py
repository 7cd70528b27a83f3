"""What the plans of search methods are worth after the same fine-tuning, in test accuracy.

    python scripts/benchmarks/tuned.py --model vgg16 --model-args width=0.25 --checkpoint FILE --data folder:PATH \\
        --budget 0.15 --compare COMPARISON --runs FOLDER --out docs/benchmarks/tuned-vgg16-0.15.csv

The plans of `uniform`, `global-l1`, `sensitivity`, `cma-es` and `ppo` are those of a finished `rlprune compare` on the
same network under the same budget. `tunings` is `rlprune search --tunings N`, run here for every seed. `random` is the
best, on the search images, of as many random plans as can be fine-tuned in the time that search takes. What has been
measured is not measured again; the same command in several processes, best with one thread each, fills one file.
Without anything left to measure the figures go to docs/benchmarks/tuned.json. A folder
with fewer training images makes a shorter cell.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import grow, keep_cell, plan_arguments, unclaimed
from torch import nn

from rlprune import search
from rlprune.agents.search.setup import make_evaluator
from rlprune.cost.budget import parse_budget
from rlprune.cost.projection import BudgetProjector
from rlprune.graph.surgery import prune
from rlprune.methods.allocators.uniform import uniform
from rlprune.plans.counts import counts_to_text, text_to_key, top_mask
from rlprune.training.config import TrainingConfig
from rlprune.training.loop import evaluate, train
from rlprune.utils.progress import Progress
from rlprune.utils.progress_display import LineProgress
from rlprune.workloads.workload import Workload, open_workload

FIXED = ("uniform", "global-l1", "sensitivity", "cma-es", "ppo")
METHODS = (*FIXED, "random", "tunings")
EPOCHS, SEEDS = 6, 3


def main() -> None:
    """Measure what is left, then print the table."""
    parser = plan_arguments(__doc__)
    parser.add_argument("--compare", type=Path, required=True, help="folder of a finished comparison")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the searches with tunings")
    parser.add_argument("--tunings", type=int, default=40, help="brief ones of every search")
    given = parser.parse_args()
    workload = open_workload(vars(given), Progress())
    scores = make_evaluator(workload, "l1", 0).scores
    # A search and the random plans that get its time go together, and take longest.
    works = {
        f"{name}-{seed}": (find, seed)
        for name, find in {"searched": searched, "compared": compared}.items()
        for seed in range(SEEDS)
    }
    for work in unclaimed(given.out, works):
        find, seed = works[work]
        for method, counts in find(given, workload, scores, seed):
            if (method, seed) not in known(given.out):
                module, seconds = fine_tuned(workload, scores, counts, seed)
                accuracy = evaluate(module, workload.data.test, device=workload.device)[1]
                row = {"method": method, "seed": seed, "test_accuracy": accuracy, "seconds": round(seconds, 1)}
                grow(given.out, row | {"counts": counts_to_text(counts)})
                print(method, seed, f"{100 * accuracy:.2f} %", flush=True)
    table = pd.read_csv(given.out)
    print(summary(table).to_markdown(floatfmt=".2f"))
    if len(table) == SEEDS * len(METHODS):
        facts = {"epochs": EPOCHS, "seeds": SEEDS, "tunings": given.tunings}
        rows = summary(table).rename_axis("method").reset_index().to_dict("records")
        keep_cell("tuned", given, len(workload.data.train), facts | {"methods": rows})


def compared(
    given: argparse.Namespace, workload: Workload, scores: np.ndarray, seed: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Method -> (groups,) the kept counts that it ended with in the comparison."""
    cells = pd.read_csv(given.compare / "cells.csv")
    for method in FIXED:
        (text,) = cells.loc[(cells["method"] == method) & (cells["seed"] == seed), "counts"]
        yield method, np.array(text_to_key(text))


def searched(
    given: argparse.Namespace, workload: Workload, scores: np.ndarray, seed: int
) -> Iterator[tuple[str, np.ndarray]]:
    """The kept counts of the plan of a search with tunings, and of the best of random ones that had as much time."""
    names = ("model", "model_args", "checkpoint", "data", "budget", "tunings")
    settings = {name: getattr(given, name) for name in names} | {"seed": seed, "finetune_epochs": EPOCHS}
    # As the rivals' plans, which are fine-tuned here: from the labels alone.
    settings |= {"distill": False}
    given.runs.mkdir(parents=True, exist_ok=True)
    out = given.runs / f"seed{seed}"
    with (given.runs / f"seed{seed}.log").open("a") as log:
        search(**settings, out=out, progress=LineProgress(log))
    plan = json.loads((out / "plan.json").read_text())
    yield "tunings", np.array([len(group["kept"]) for group in plan["groups"].values()])
    if ("random", seed) not in known(given.out):
        seconds = pd.read_csv(out / "tunings.csv")["seconds"].max()
        yield (
            "random",
            random(workload, scores, BudgetProjector(workload.cost, parse_budget(given.budget)), seed, seconds),
        )


def random(workload: Workload, scores: np.ndarray, projector: BudgetProjector, seed: int, seconds: float) -> np.ndarray:
    """The best of random plans around the uniform one, fine-tuned one after the other until the time is over."""
    rng, middle, start = np.random.default_rng(seed), uniform(projector), time.perf_counter()
    best, lowest = middle, np.inf
    while time.perf_counter() - start < seconds:
        counts = projector.project(
            np.minimum(middle * np.exp(rng.normal(0, 0.35, len(middle))), projector.sizes)[None]
        )[0]
        module, _ = fine_tuned(workload, scores, counts, seed)
        loss = evaluate(module, workload.data.search, device=workload.device)[0]
        if loss < lowest:
            best, lowest = counts, loss
    return best


def fine_tuned(workload: Workload, scores: np.ndarray, counts: np.ndarray, seed: int) -> tuple[nn.Module, float]:
    """A pruned network after the whole fine-tuning, and the seconds that it took."""
    start, module = (
        time.perf_counter(),
        prune(workload.module, workload.graph, top_mask(workload.graph, counts, scores)),
    )
    train(
        module,
        workload.data.train,
        TrainingConfig(epochs=EPOCHS, recovery=True, batch_size=128, seed=seed),
        device=workload.device,
    )
    return module, time.perf_counter() - start


def known(path: Path) -> set[tuple[str, int]]:
    """Methods and seeds that have been measured."""
    if not path.is_file():
        return set()
    table = pd.read_csv(path)
    return set(zip(table["method"], table["seed"], strict=True))


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation of the test accuracy in % over the seeds of every method, the best first."""
    accuracies = 100 * table.groupby("method")["test_accuracy"].agg(["mean", "std"])
    return accuracies.sort_values("mean", ascending=False)


def tuned_table(figures: dict[str, Any]) -> str:
    """Test accuracy of every method's plans after the same fine-tuning."""
    (epochs,), (seeds,) = ({cell[name] for cell in figures["cells"]} for name in ("epochs", "seeds"))
    title = (
        f"**Plans of equal MACs after the same fine-tuning of {epochs} epochs from the labels alone: test accuracy in "
        f"%, mean ± sd of {seeds} seeds** (`python scripts/benchmarks/tuned.py`)"
    )
    heads = " | ".join(f"`{method}`" for method in METHODS)
    lines = [f"| network | training images | MACs | N | {heads} |", "|---|---|---|---|" + "---|" * len(METHODS)]
    for cell in figures["cells"]:
        known = {row["method"]: row for row in cell["methods"]}
        best = max(known, key=lambda method: known[method]["mean"])
        texts = [f"{known[method]['mean']:.1f} ± {known[method]['std']:.1f}" for method in METHODS]
        marked = " | ".join(
            f"**{text}**" if method == best else text for method, text in zip(METHODS, texts, strict=True)
        )
        place = f"{cell['network']} | {cell['images']:,} | {100 * cell['budget']:g} % | {cell['tunings']}"
        lines.append(f"| {place} | {marked} |")
    legend = (
        "`tunings` is `rlprune search --tunings N`; `random` the best of the random plans that can be fine-tuned in "
        "the time it takes."
    )
    return "\n".join([title, "", *lines, "", f"{legend} {won(figures['cells'])}"])


def won(cells: list[dict[str, Any]]) -> str:
    """In words: by how much the search with tunings is ahead of the others, on average over the cells."""
    tables = [pd.DataFrame(cell["methods"]).set_index("method") for cell in cells]
    texts = [f"`{rival}` by {ahead(tables, [rival] * len(cells))}" for rival in METHODS if rival != "tunings"]
    best = [table["mean"].drop("tunings").idxmax() for table in tables]
    return (
        f"Cells measured so far: {len(cells)}. On average `tunings` is ahead of {', '.join(texts)} points, and of the "
        f"best of them in each cell by {ahead(tables, best)} (± standard error)."
    )


def ahead(tables: list[pd.DataFrame], rivals: list[str]) -> str:
    """How many points the search with tunings is ahead of a rival in every cell, on average, and the standard error."""
    pairs = [(table.loc["tunings"], table.loc[rival]) for table, rival in zip(tables, rivals, strict=True)]
    gap = np.mean([ours["mean"] - other["mean"] for ours, other in pairs])
    variances = [(ours["std"] ** 2 + other["std"] ** 2) / SEEDS for ours, other in pairs]
    return f"{gap:.1f} ± {np.sqrt(np.sum(variances)) / len(pairs):.1f}"


if __name__ == "__main__":
    main()
