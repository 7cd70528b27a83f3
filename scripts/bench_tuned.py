"""What the plans of search methods are worth after the same fine-tuning, in test accuracy.

    python scripts/bench_tuned.py --model vgg16 --model-args width=0.25 --checkpoint FILE --data folder:PATH \\
        --budget 0.15 --compare COMPARISON --runs FOLDER --out docs/benchmarks/tuned-vgg16-0.15.csv

The plans of `uniform`, `global-l1`, `sensitivity`, `cma-es` and `ppo` are those of a finished `rlprune compare` on the
same network under the same budget. `tunings` is `rlprune search --tunings 40`, run here for every seed. `random` is the
best, on the search images, of as many random plans as can be fine-tuned in the time that search takes. What has been
measured is not measured again; several processes with shares such as ``--share 0/2`` and ``--share 1/2`` may fill one
file. Without anything left to measure the table is printed.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from figures import grow, plan_arguments
from torch import nn

from rlprune import search
from rlprune.agents.preparation import make_evaluator
from rlprune.allocators.uniform import uniform
from rlprune.budget import Lander, parse_budget
from rlprune.plan import counts_to_text, text_to_key, top_mask
from rlprune.problem import Problem, open_problem
from rlprune.progress import LineProgress, Progress
from rlprune.pruner import prune
from rlprune.training import evaluate, train

FIXED = ("uniform", "global-l1", "sensitivity", "cma-es", "ppo")
TUNINGS, EPOCHS, SEEDS = 40, 6, 3


def main() -> None:
    """Measure what is left, then print the table."""
    parser = plan_arguments(__doc__)
    parser.add_argument("--compare", type=Path, required=True, help="folder of a finished comparison")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the searches with tunings")
    given = parser.parse_args()
    share, shares = map(int, given.share.split("/"))
    problem = open_problem(vars(given), Progress())
    scores = make_evaluator(problem, "l1", 0).scores
    for seed in range(share, SEEDS, shares):
        for method, counts in plans(given, problem, scores, seed):
            if (method, seed) not in known(given.out):
                module, seconds = fine_tuned(problem, scores, counts, seed)
                accuracy = evaluate(module, problem.data.test, device=problem.device)[1]
                row = {"method": method, "seed": seed, "test_accuracy": accuracy, "seconds": round(seconds, 1)}
                grow(given.out, row | {"counts": counts_to_text(counts)})
                print(method, seed, f"{100 * accuracy:.2f} %", flush=True)
    print(summary(pd.read_csv(given.out)))


def plans(
    given: argparse.Namespace, problem: Problem, scores: np.ndarray, seed: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Method -> (groups,) the kept counts that it ended with."""
    settings = {name: getattr(given, name) for name in ("model", "model_args", "checkpoint", "data", "budget")}
    out = given.runs / f"seed{seed}"
    result = search(
        **settings, seed=seed, tunings=TUNINGS, finetune_epochs=0, out=out, progress=LineProgress(open_log(given.runs))
    )
    plan = json.loads((out / "plan.json").read_text())
    yield "tunings", np.array([len(group["kept"]) for group in plan["groups"].values()])
    cells = pd.read_csv(given.compare / "cells.csv")
    for method in FIXED:
        (text,) = cells.loc[(cells["method"] == method) & (cells["seed"] == seed), "counts"]
        yield method, np.array(text_to_key(text))
    if ("random", seed) not in known(given.out):
        yield (
            "random",
            random(problem, scores, Lander(problem.cost, parse_budget(given.budget)), seed, result["seconds"]),
        )


def random(problem: Problem, scores: np.ndarray, lander: Lander, seed: int, seconds: float) -> np.ndarray:
    """The best of random plans around the uniform one, fine-tuned one after the other until the time is over."""
    rng, middle, start = np.random.default_rng(seed), uniform(lander), time.perf_counter()
    best, lowest = middle, np.inf
    while time.perf_counter() - start < seconds:
        counts = lander.land(np.minimum(middle * np.exp(rng.normal(0, 0.35, len(middle))), lander.sizes)[None])[0]
        module, _ = fine_tuned(problem, scores, counts, seed)
        loss = evaluate(module, problem.data.search, device=problem.device)[0]
        if loss < lowest:
            best, lowest = counts, loss
    return best


def fine_tuned(problem: Problem, scores: np.ndarray, counts: np.ndarray, seed: int) -> tuple[nn.Module, float]:
    """A pruned network after the whole fine-tuning, and the seconds that it took."""
    start, module = time.perf_counter(), prune(problem.module, problem.graph, top_mask(problem.graph, counts, scores))
    train(module, problem.data.train, epochs=EPOCHS, recovery=True, batch_size=128, seed=seed, device=problem.device)
    return module, time.perf_counter() - start


def open_log(folder: Path) -> Any:
    """Where the searches tell how far they are."""
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / "log.txt").open("a")


def known(path: Path) -> set[tuple[str, int]]:
    """Methods and seeds that have been measured."""
    if not path.is_file():
        return set()
    table = pd.read_csv(path)
    return set(zip(table["method"], table["seed"], strict=True))


def summary(table: pd.DataFrame) -> str:
    """Mean, standard deviation and number of seeds of every method, the best first, in %."""
    accuracies = 100 * table.groupby("method")["test_accuracy"].agg(["mean", "std", "count"])
    accuracies["count"] /= 100
    return accuracies.sort_values("mean", ascending=False).to_markdown(floatfmt=".2f")


if __name__ == "__main__":
    main()
