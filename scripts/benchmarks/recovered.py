"""Does the learning pay once networks have recovered? Every method at equal cost and equal distilled fine-tuning.

    python scripts/benchmarks/recovered.py --data folder:PATH --checkpoints FOLDER --out FOLDER

A cell is a network and a budget. `rlprune compare` measures our methods there with three seeds, two of them controls:
`ppo-frozen` is PPO without its gradient, `mutate` has no policy at all. Where the budget is one of MACs, torch-pruning
stands beside, and FastNAS where NVIDIA's ModelOpt is installed (see `fastnas.py`). FOLDER of the checkpoints holds
vgg16.safetensors (width 0.25) and resnet20.safetensors. What has been measured is not measured again; the same command
in two processes, best with one thread each, shares the work. Complete cells go to docs/benchmarks/recovered.json.
"""

import argparse
import copy
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from common import command, grow, keep, unclaimed
from fastnas import fastnas
from peers import PEERS, macs, within
from torch import nn

from rlprune.config.commands import Search
from rlprune.evaluation.sliced import recalibrate
from rlprune.training.loop import evaluate
from rlprune.utils.progress import Progress
from rlprune.workloads.dense import fit
from rlprune.workloads.workload import Workload, open_workload

EPOCHS, SEEDS, EVALUATIONS = 6, 3, 150
OURS = ("uniform", "sensitivity", "additive-dp", "cma-es", "mutate", "ppo-frozen", "ppo")
BLOCKS, TUNED, SEARCH = "ppo with blocks", "ppo with tunings", "rlprune search"
TUNINGS = 24
"""Brief fine-tunings of `ppo with tunings`, half as many four times as long."""
REPAIRED = ", repaired"
"""Of methods whose every network was repaired by `reconstruct`."""
METHODS = (*OURS, BLOCKS, TUNED, SEARCH, *PEERS, "FastNAS", *(f"{name}{REPAIRED}" for name in OURS))
CONTROLS = ("mutate", "ppo-frozen")
MINE = ("ppo", BLOCKS, TUNED, SEARCH)
LATENCY = ("--backend", "onnxruntime", "--threads", "1")


class Cell(NamedTuple):
    """A network under a budget."""

    label: str
    model: str
    args: str
    budget: str

    def words(self, given: argparse.Namespace) -> list[str]:
        """As the command line takes it."""
        words = ["--model", self.model, "--data", given.data, "--checkpoint", str(self.checkpoint(given))]
        words += ["--model-args", self.args] if self.args else []
        return [*words, "--budget", self.budget, *(LATENCY if self.budget.startswith("latency") else ())]

    def checkpoint(self, given: argparse.Namespace) -> Path:
        """The weights of the dense network."""
        path: Path = given.checkpoints / f"{self.model}.safetensors"
        return path

    def workload(self, given: argparse.Namespace) -> Workload:
        """The network and its images."""
        settings = {"model": self.model, "model_args": self.args, "data": given.data}
        return open_workload(settings | {"checkpoint": self.checkpoint(given)}, Progress())


CELLS = {
    f"{model}-{budget}": Cell(label, model, args, budget)
    for label, model, args in (("vgg16 ×0.25", "vgg16", "width=0.25"), ("resnet20", "resnet20", ""))
    for budget in ("macs=0.3", "macs=0.15", "latency=0.3")
    # The thin VGG is so fast that its calls decide.
    if (model, budget) != ("vgg16", "latency=0.3")
}


def main() -> None:
    """Measure what is left, then keep what is complete."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder:PATH with train/ and test/")
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="where the comparisons lie")
    parser.add_argument("--cells", nargs="*", choices=CELLS, default=list(CELLS))
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    works = {f"{name}-{part}": (PARTS[part], CELLS[name], name) for part in given.parts for name in given.cells}
    for key in unclaimed(given.out / "works.csv", works):
        work, cell, name = works[key]
        work(cell, given, given.out / name)
    cells = [found for name, cell in CELLS.items() if (found := collected(cell, given.out / name))]
    figures = {"epochs": EPOCHS, "seeds": SEEDS, "evaluations": EVALUATIONS, "of": len(CELLS), "cells": cells}
    keep("recovered", figures)
    print(recovered_table(figures))


def ours(cell: Cell, given: argparse.Namespace, folder: Path) -> None:
    """Our methods under the budget."""
    compare(cell, given, folder.with_name(f"{folder.name}-ours"), ",".join(OURS), "--decide", "channels")


def blocks(cell: Cell, given: argparse.Namespace, folder: Path) -> None:
    """PPO that may also take out whole blocks, where a network has some."""
    if cell.model.startswith("resnet"):
        compare(cell, given, folder.with_name(f"{folder.name}-blocks"), "ppo", "--decide", "channels,blocks")


def repaired(cell: Cell, given: argparse.Namespace, folder: Path) -> None:
    """Our methods where every evaluated network, and the final one, is repaired by least squares."""
    methods = ",".join((*OURS[:3], "ppo", *OURS[3:-1]))
    compare(cell, given, folder.with_name(f"{folder.name}-repaired"), methods, "--repair", "reconstruct")


def tunings(cell: Cell, given: argparse.Namespace, folder: Path) -> None:
    """PPO whose search goes on with what brief fine-tunings leave, as `rlprune search --tunings` does."""
    search(cell, given, folder, "tunings", "--tunings", str(TUNINGS))


def searches(cell: Cell, given: argparse.Namespace, folder: Path) -> None:
    """What `rlprune search` ends on by default, which is the best of several plans after a brief fine-tuning."""
    search(cell, given, folder, "searches")


def search(cell: Cell, given: argparse.Namespace, folder: Path, part: str, *more: str) -> None:
    """One search a seed."""
    for seed in range(SEEDS):
        words = [*cell.words(given), "--evaluations", str(EVALUATIONS), "--finetune-epochs", str(EPOCHS)]
        words += ["--seed", str(seed), *more]
        command("search", *words, "--out", str(folder.with_name(f"{folder.name}-{part}-{seed}")))


def compare(cell: Cell, given: argparse.Namespace, folder: Path, methods: str, *more: str) -> None:
    """One comparison; one that has ended shows its result at once."""
    words = [*cell.words(given), "--methods", methods, "--seeds", str(SEEDS), "--evaluations", str(EVALUATIONS)]
    command("compare", *words, "--finetune-epochs", str(EPOCHS), "--distill", *more, "--out", str(folder))


def theirs(cell: Cell, given: argparse.Namespace, folder: Path) -> None:
    """Other libraries' networks under a budget of MACs, fine-tuned as ours are."""
    resource, _, limit = cell.budget.partition("=")
    if resource != "macs":
        return
    workload, path = cell.workload(given), folder.with_name(f"{folder.name}-theirs.csv")
    known = set(pd.read_csv(path)["method"]) if path.is_file() else set()
    for method, module in peers(workload, float(limit), known):
        recalibrate(module, workload.calibration()[0])
        row = {"method": method, "macs_ratio": macs(module, workload) / macs(workload.module, workload)}
        row["test_accuracy"] = evaluate(module, workload.data.test, device=workload.device)[1]
        accuracies = [fine_tuned(cell, given, workload, module, seed, folder) for seed in range(SEEDS)]
        grow(path, row | {"tuned_accuracy": np.mean(accuracies), "tuned_accuracy_sd": np.std(accuracies, ddof=1)})


def peers(workload: Workload, limit: float, known: set[str]) -> Iterator[tuple[str, nn.Module]]:
    """Name -> network of those that are not known."""
    for method, isomorphic in PEERS.items():
        if method not in known:
            yield method, within(workload, limit, isomorphic)
    if "FastNAS" not in known and find_spec("modelopt"):
        yield "FastNAS", fastnas(workload, limit)[0]


def fine_tuned(
    cell: Cell, given: argparse.Namespace, workload: Workload, module: nn.Module, seed: int, folder: Path
) -> float:
    """Test accuracy of a copy after the fine-tuning that `compare` gives its networks."""
    smaller, state = copy.deepcopy(module), folder.with_name(f"{folder.name}-{seed}.state")
    options = Search(model=cell.model, data=given.data, budget=cell.budget, seed=seed)
    fit(smaller, workload, EPOCHS, options, state, Progress(), recovery=True, teacher=workload.module)
    state.unlink(missing_ok=True)
    return evaluate(smaller, workload.data.test, device=workload.device)[1]


PARTS = {
    "ours": ours,
    "blocks": blocks,
    "searches": searches,
    "repaired": repaired,
    "tunings": tunings,
    "theirs": theirs,
}


def collected(cell: Cell, folder: Path) -> dict[str, Any]:
    """What is known of a cell: of every method the means over the seeds that have ended."""
    tables = []
    for part in ("ours", "blocks", "repaired"):
        path = folder.with_name(f"{folder.name}-{part}") / "cells.csv"
        if path.is_file():
            table = pd.read_csv(path)
            named = {"ours": table["method"], "blocks": BLOCKS, "repaired": table["method"] + REPAIRED}
            tables.append(table.assign(method=named[part]))
    for part, name in (("tunings", TUNED), ("searches", SEARCH)):
        results = [folder.with_name(f"{folder.name}-{part}-{seed}") / "result.json" for seed in range(SEEDS)]
        if found := [json.loads(path.read_text()) for path in results if path.is_file()]:
            names = {"oneshot_accuracy": "test_accuracy", "finetuned_accuracy": "tuned_accuracy"}
            tables.append(pd.DataFrame(found).rename(columns=names).assign(method=name))
    if not tables:
        return {}
    grouped = pd.concat(tables).groupby("method", sort=False)
    methods = grouped[["macs_ratio", "search_loss", "test_accuracy", "tuned_accuracy"]].mean()
    methods["tuned_accuracy_sd"], methods["seeds"] = grouped["tuned_accuracy"].std(), grouped.size()
    records = methods.reset_index().to_dict("records")
    path = folder.with_name(f"{folder.name}-theirs.csv")
    if path.is_file():
        records += pd.read_csv(path).assign(seeds=SEEDS).to_dict("records")
    known = [{key: None if value != value else value for key, value in record.items()} for record in records]
    return {"network": cell.label, "budget": cell.budget, "methods": known}


def readme_table(figures: dict[str, Any]) -> str:
    """Test accuracy of every method after the same fine-tuning, without repairs."""
    return "\n".join(_rows(figures["cells"], _unrepaired(figures["cells"]), oneshot=False))


def recovered_table(figures: dict[str, Any]) -> str:
    """The same with the accuracy right after pruning below it, and what learning adds."""
    cells = figures["cells"]
    title = (
        f"**At equal cost and after the same {figures['epochs']} distilled epochs: test accuracy in %, mean ± sd of "
        f"{figures['seeds']} seeds, or of fewer (n) where not all have ended; below it right after pruning** "
        "(`python scripts/benchmarks/recovered.py`)"
    )
    known = [{record["method"]: record for record in cell["methods"]} for cell in cells]
    return "\n".join([title, "", *_rows(cells, known, oneshot=True), "", said(_unrepaired(cells), figures["of"])])


def _unrepaired(cells: list[dict[str, Any]]) -> list[dict[str, dict[str, Any]]]:
    """Of every cell the records of methods without repairs, by their names."""
    rows = [[record for record in cell["methods"] if not record["method"].endswith(REPAIRED)] for cell in cells]
    return [{record["method"]: record for record in records} for records in rows]


def _rows(cells: list[dict[str, Any]], known: list[dict[str, dict[str, Any]]], oneshot: bool) -> list[str]:
    lines = ["| method | " + " | ".join(f"{cell['network']}, {cell['budget']}" for cell in cells) + " |"]
    lines.append("|---|" + "---|" * len(cells))
    for method in METHODS:
        if any(method in records for records in known):
            lines.append(f"| `{method}` | " + " | ".join(_text(records, method, oneshot) for records in known) + " |")
    return lines


def _text(records: dict[str, dict[str, Any]], method: str, oneshot: bool) -> str:
    if method not in records:
        return ""
    record = records[method]
    best = max(records, key=lambda name: records[name]["tuned_accuracy"])
    tuned = f"{100 * record['tuned_accuracy']:.1f}"
    tuned = f"**{tuned}**" if method == best else tuned
    spread = f" ± {100 * record['tuned_accuracy_sd']:.1f}" if record["tuned_accuracy_sd"] is not None else ""
    fewer = f" ({record['seeds']})" if record["seeds"] < SEEDS else ""
    below = f"<br>{100 * record['test_accuracy']:.1f}" if oneshot else ""
    return f"{tuned}{spread}{fewer}{below}"


def said(known: list[dict[str, dict[str, Any]]], of: int) -> str:
    """In words: by how many points PPO is ahead of its controls and of the strongest rival of each cell."""
    whole = [records for records in known if all(record["seeds"] == SEEDS for record in records.values())]
    parts = [f"Measured so far: {len(whole)} of {of} cells, on which the rest of this rests."]
    known = [records for records in whole if "ppo" in records]
    for rival in (*CONTROLS, "sensitivity"):
        pairs = [(records["ppo"], records[rival]) for records in known if {"ppo", rival} <= set(records)]
        if pairs:
            parts.append(f"`ppo` against `{rival}`: {_ahead(pairs)}.")
    pairs = []
    for records in known:
        mine = [record for name, record in records.items() if name in MINE]
        rivals = [record for name, record in records.items() if name not in (*MINE, *CONTROLS)]
        if rivals and mine:
            pairs.append(tuple(max(some, key=lambda record: record["tuned_accuracy"]) for some in (mine, rivals)))
    if pairs:
        parts.append(f"The best of ours against the best rival of each cell: {_ahead(pairs)}.")
    return " ".join(parts)


def _ahead(pairs: list[Any]) -> str:
    """The mean difference in points over the cells and its standard error, from the spread over the seeds."""
    gaps = [100 * (ours["tuned_accuracy"] - other["tuned_accuracy"]) for ours, other in pairs]
    variances = [(ours["tuned_accuracy_sd"] ** 2 + other["tuned_accuracy_sd"] ** 2) / SEEDS for ours, other in pairs]
    return f"{np.mean(gaps):+.1f} ± {100 * np.sqrt(np.sum(variances)) / len(pairs):.1f} points"


if __name__ == "__main__":
    main()
